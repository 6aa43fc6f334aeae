import json
import shutil
from pathlib import Path

import pytest
from tests_types import MELANGE_TOY, Run


@pytest.fixture
def planned(hgpu: Run, tmp_path: Path) -> str:
    """A plan of two L4 machines, and its digest."""
    assert hgpu("init", "serve", "--out", "spec.yaml").returncode == 0
    done = hgpu("plan", "spec.yaml", "--estimate", "--confidence", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["digest"])


def azure(path: Path, rows: list[tuple[float, int, int]]) -> str:
    """Write a trace of (second, input, output)."""
    lines = [
        f"2023-11-16 18:{int(second // 60):02}:{second % 60:010.7f},{tokens_in},{tokens_out}"
        for second, tokens_in, tokens_out in rows
    ]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]) + "\n")
    return str(path)


def test_a_plan_keeps_its_promise_at_its_own_rate(hgpu: Run, planned: str) -> None:
    done = hgpu("simulate", planned[:12], "--requests", "3000", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [run["multiplier"] for run in document["runs"]] == [0.5, 0.8, 1.0, 1.2]
    assert document["provenance"] == "estimated" and document["balance"] == "power_of_two"
    costs = [run["usd_per_million_output_tokens"] for run in document["runs"]]
    assert costs == sorted(costs, reverse=True)
    for run in document["runs"]:
        assert run["requests"] == 3000 and run["rejected"] == 0 and run["lost"] is None
        assert run["rate_rps"] == pytest.approx(4 * run["multiplier"])
        assert [row["objective"] for row in run["objectives"]] == ["ttft", "tpot"]
        assert run["goodput_share"] <= min(row["attainment"] for row in run["objectives"])
        for row in run["objectives"]:
            assert row["met"] == (row["attainment"] * 100 >= row["percentile"])
        assert sum(pool["requests"] for pool in run["pools"]) == 3000
        assert run["usd_per_million_tokens"] < run["usd_per_million_output_tokens"]
        assert run["makespan_s"] == pytest.approx(3000 / run["rate_rps"], rel=0.2)
    assert document["runs"][2]["met"]


def test_the_same_simulation_has_the_same_digest_and_walks_back_to_plan_and_latency(
    hgpu: Run, planned: str, tmp_path: Path
) -> None:
    trace = azure(tmp_path / "trace.csv", [(second, 400, 90) for second in range(50)])
    words = ("simulate", planned, "--trace", trace, "--rates", "1", "--seed", "5", "--json")
    first, second = (json.loads(hgpu(*words).stdout) for _ in range(2))
    assert first == second
    tree = json.loads(hgpu("show", first["digest"], "--lineage", "--json").stdout)
    assert tree["kind"] == "simulation"
    assert [(row["kind"], row["problem"]) for row in tree["inputs"]] == [
        ("plan", None),
        ("latency", None),
        ("file", None),
    ]
    assert "attainment" in hgpu("show", first["digest"]).stdout


def test_a_trace_is_stretched_to_the_rate_of_the_plan_and_says_so(
    hgpu: Run, planned: str, tmp_path: Path
) -> None:
    trace = azure(tmp_path / "trace.csv", [(second / 2, 400, 90) for second in range(81)])
    done = hgpu("simulate", planned, "--trace", trace, "--rates", "1,2", "--json")
    assert "from 2 to 4 requests/s" in done.stderr
    document = json.loads(done.stdout)
    assert "from 2 to 4 requests/s" in document["arrivals"]
    assert [run["requests"] for run in document["runs"]] == [81, 81]
    assert 20 < document["runs"][0]["makespan_s"] < 40 and 10 < document["runs"][1]["makespan_s"] < 30
    fewer = json.loads(hgpu("simulate", planned, "--trace", trace, "--requests", "40", "--json").stdout)
    assert fewer["runs"][0]["requests"] == 40


def test_a_missed_objective_is_exit_3_with_one_document(hgpu: Run, planned: str, tmp_path: Path) -> None:
    """All at once, then one long after: the queue takes longer than two seconds."""
    burst = [(0.0, 400, 90)] * 200 + [(50.0, 400, 90)]
    trace = azure(tmp_path / "burst.csv", burst)
    done = hgpu("simulate", planned, "--trace", trace, "--rates", "0.5,1", "--json")
    assert done.returncode == 3 and not json.loads(done.stdout)["runs"][1]["met"]
    shown = hgpu("simulate", planned, "--trace", trace, "--rates", "0.5,1")
    assert shown.returncode == 3 and "missed at 1×: TTFT ≤ 2000 ms" in shown.stdout
    assert hgpu("simulate", planned, "--trace", trace, "--rates", "0.5").returncode == 0


def test_rejected_requests_are_counted_and_explained(hgpu: Run, planned: str, tmp_path: Path) -> None:
    rows = [(float(second), 400, 90) for second in range(98)] + [(98.0, 400, 0), (99.0, 7900, 900)]
    done = hgpu("simulate", planned, "--trace", azure(tmp_path / "t.csv", rows), "--rates", "1")
    assert "rejected at 1×: 2 that no bucket of the plan holds, 0 that no engine" in done.stdout


def test_prefix_caching_tells_what_it_saves_of_a_trace_with_hashes(
    hgpu: Run, planned: str, tmp_path: Path
) -> None:
    """Every prompt begins with the same 512 of 700 tokens: all but the first find them, on each engine."""
    rows = [
        {"timestamp": 400 * n, "input_length": 700, "output_length": 40, "hash_ids": [0, n + 1]}
        for n in range(80)
    ]
    path = tmp_path / "mooncake.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    words = ("simulate", planned, "--trace", str(path), "--rates", "1")
    cached, plain = (
        json.loads(hgpu(*words, *more, "--json").stdout)["runs"][0] for more in (("--prefix-caching",), ())
    )
    assert cached["pools"][0]["engines"] == 2
    assert cached["pools"][0]["hit_share"] == pytest.approx(512 * 78 / (700 * 80))
    assert plain["pools"][0]["hit_share"] is None
    assert cached["ttft_s"]["mean"] < plain["ttft_s"]["mean"]
    assert "71.3%" in hgpu(*words, "--prefix-caching").stdout
    assert "prefix hits" not in hgpu(*words).stdout


def test_prefix_caching_without_hashes_is_refused(hgpu: Run, planned: str, tmp_path: Path) -> None:
    trace = azure(tmp_path / "trace.csv", [(float(second), 400, 90) for second in range(9)])
    for words in ((), ("--trace", trace)):
        done = hgpu("simulate", planned, "--prefix-caching", *words)
        assert done.returncode == 2 and not done.stdout
        assert "prefix caching can't be simulated" in done.stderr and "hash_ids" in done.stderr


def test_the_phase_policy_changes_the_order_and_the_pace_of_prompts_and_is_kept_in_the_artifact(
    hgpu: Run, planned: str, tmp_path: Path
) -> None:
    """Long and short prompts at once, far more than fit a step: stock decodes wait for whole chunks."""
    rows = [(second / 40, 1900 if second % 3 else 150, 60) for second in range(240)]
    words = ("simulate", planned, "--trace", azure(tmp_path / "t.csv", rows), "--rates", "3")
    policies = ((), ("--ageing-tok-per-s", "15"), ("--tpot-objective-s", "0.1"))
    stock, aged, paced = (json.loads(hgpu(*words, *more, "--json").stdout) for more in policies)
    assert (stock["phases"], aged["phases"]["ageing_tok_per_s"], paced["phases"]["tpot_s"]) == (None, 15, 0.1)
    assert len({document["digest"] for document in (stock, aged, paced)}) == 3
    assert aged["runs"][0]["ttft_s"]["mean"] < stock["runs"][0]["ttft_s"]["mean"]
    assert paced["runs"][0]["tpot_s"]["p99"] <= 0.101 < stock["runs"][0]["tpot_s"]["p99"]
    both = ("--ageing-tok-per-s", "15", "--tpot-objective-s", "0.1")
    shown = hgpu(*words, *both).stdout
    assert "prompts shortest first, ageing 15 tokens/s; steps within a TPOT of 100.0 ms" in shown
    assert "prompts shortest first" not in hgpu(*words).stdout


def test_a_policy_that_means_nothing_is_refused(hgpu: Run, planned: str) -> None:
    for words in (("--ageing-tok-per-s", "0"), ("--tpot-objective-s", "inf")):
        done = hgpu("simulate", planned, *words)
        assert done.returncode == 2 and not done.stdout
        assert "it must be above 0, and finite" in done.stderr


def test_losing_a_machine_adds_a_run_a_pool(hgpu: Run, planned: str) -> None:
    words = ("simulate", planned, "--requests", "2000", "--rates", "1", "--json")
    kept, lost = json.loads(hgpu(*words, "--lose").stdout)["runs"]
    assert (kept["lost"], lost["lost"], lost["multiplier"]) == (None, "l4", 1.0)
    assert lost["pools"][0]["engines"] == kept["pools"][0]["engines"] - 1 == 1
    assert lost["usd_per_hour"] == pytest.approx(kept["usd_per_hour"] / 2)
    assert lost["goodput_share"] < kept["goodput_share"]
    assert len(json.loads(hgpu(*words, "--no-lose").stdout)["runs"]) == 1


def test_bad_arguments_are_refused(hgpu: Run, planned: str) -> None:
    cases = (
        (("--rates", "0,1"), "bad rates '0,1'"),
        (("--rates", "fast"), "bad rates 'fast'"),
        (("--rates", "1,nan"), "bad rates '1,nan'"),
        (("--balance", "roundrobin"), "did you mean round_robin"),
        (("--trace", "nothing.csv"), "nothing.csv"),
    )
    for words, said in cases:
        done = hgpu("simulate", planned, *words)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
        assert not done.stdout


def test_a_plan_of_given_capacities_has_nothing_to_simulate(hgpu: Run, tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text(json.dumps(MELANGE_TOY))
    digest = json.loads(hgpu("plan", "--melange", "toy.json", "--json").stdout)["digest"]
    done = hgpu("simulate", digest)
    assert done.returncode == 2 and "neither objectives nor request lengths" in done.stderr


def test_a_lost_latency_model_is_named(hgpu: Run, planned: str, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "results" / "latency")
    done = hgpu("simulate", planned)
    assert done.returncode == 2 and "no latency model of pool 'l4'" in done.stderr
    assert "plan again" in done.stderr and "Traceback" not in done.stderr
