"""`hgpu plan` with everything that it can be asked beside the cheapest fleet, as a user runs it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests_types import Run

SPEC: dict[str, Any] = {
    "kind": "serve",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "workload": {"lengths": "chat", "rate_rps": 4, "requests": 2000},
    "slo": {"tpot_ms": 120, "ttft_ms": 2000},
    "gpus": ["L4", "A100-80GB"],
}


def written(folder: Path, name: str = "spec", **changes: Any) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **changes}))
    return str(path)


def test_explain_and_prove_stand_in_the_plan_and_on_the_screen(hgpu: Run, tmp_path: Path) -> None:
    path = written(tmp_path, limits={"L4": 1})
    done = hgpu("plan", path, "--explain", "--prove", "--requests", "2000")
    assert done.returncode == 0, done.stderr
    for words in ("what a bound is worth", "L4: 1", "runners-up", "at other rates", "the plan holds"):
        assert words in done.stdout
    document = json.loads(hgpu("show", "latest", "--json").stdout)["payload"]
    assert document["proof"]["held"] and document["explanation"]["flips"]
    simulated = hgpu("simulate", "latest", "--rates", "1", "--requests", "2000", "--json")
    assert simulated.returncode == 0, simulated.stderr


def test_a_proof_that_fails_ends_with_3_and_says_so(hgpu: Run, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    lines = [f"2023-11-16 18:{minute:02d}:00.0000000,800,60\n" for minute in range(50) for _ in range(200)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(lines))
    done = hgpu("plan", written(tmp_path, limits={"gpus": 2}), "--prove", "--trace", str(trace), "--json")
    assert done.returncode == 3
    proof = json.loads(done.stdout)["proof"]
    assert not proof["held"] and proof["rounds"][0]["attained"] < proof["rounds"][0]["target"]


def test_two_specs_share_their_limits(hgpu: Run, tmp_path: Path) -> None:
    specs = [written(tmp_path, name, limits={"L4": 3}) for name in ("one", "two")]
    done = hgpu("plan", *specs, "--json")
    assert done.returncode == 0, done.stderr
    plans = json.loads(done.stdout)["plans"]
    used = sum(row["count"] for plan in plans for row in plan["allocation"] if row["gpu"] == "L4")
    assert len(plans) == 2 and used <= 3
    assert len(json.loads(hgpu("list", "plan", "--json").stdout)) == 2
    assert hgpu("plan", *specs, "--sweep", "rate=1,2").returncode == 2


def test_a_running_plan_is_kept_where_changing_costs_more(hgpu: Run, tmp_path: Path) -> None:
    dear = json.loads(hgpu("plan", written(tmp_path, gpus=["A100-80GB"]), "--json").stdout)
    again = hgpu("plan", written(tmp_path), "--current", dear["digest"], "--change-cost", "9", "--json")
    assert [row["gpu"] for row in json.loads(again.stdout)["allocation"]] == ["A100-80GB"]


def test_a_sweep_is_drawn(hgpu: Run, tmp_path: Path) -> None:
    path = written(tmp_path)
    done = hgpu("plan", path, "--sweep", "rate=1:4", "--sweep", "slo.tpot_ms=60,120", "--png", "sweep.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_refined_capacities_are_kept_and_used_again(hgpu: Run, tmp_path: Path) -> None:
    path = written(tmp_path, gpus=["A100-80GB"], workload={"lengths": "fixed:400x30", "rate_rps": 4})
    first = json.loads(hgpu("plan", path, "--refine", "--json").stdout)
    memo = tmp_path / "results" / "memo" / "capacity"
    kept = {file.name: file.stat().st_mtime_ns for file in memo.iterdir()}
    again = json.loads(hgpu("plan", path, "--refine", "--json").stdout)
    assert kept and {file.name: file.stat().st_mtime_ns for file in memo.iterdir()} == kept
    assert first["digest"] == again["digest"]


def test_mode_pd_and_a_token_budget_are_simulated_as_they_were_planned(hgpu: Run, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "gpus": ["A10G"],
        "workload": {"lengths": "fixed:512x128", "rate_rps": 6, "requests": 500},
        "slo": {"tpot_ms": 55, "ttft_ms": 2000, "percentile": 90},
    }
    budgets = {"max_num_batched_tokens": [1024, 2048], "max_num_seqs": 64}
    path = written(tmp_path, modes=["mixed", "pd"], engine=budgets, **changes)
    refused = hgpu("plan", path)
    assert refused.returncode == 2 and "--refine" in refused.stderr
    planned = hgpu("plan", path, "--refine", "--json")
    assert planned.returncode == 0, planned.stderr
    (row,) = json.loads(planned.stdout)["allocation"]
    assert row["mode"] == "pd" and row["phases"]["options"]["tpot_s"] < 0.055
    simulated = hgpu("simulate", "latest", "--rates", "1", "--requests", "1000", "--json")
    assert simulated.returncode == 0, simulated.stderr


def test_bad_input_is_answered_not_planned(hgpu: Run, tmp_path: Path) -> None:
    cases = (
        ({"workload": {"lengths": "chat", "rate_rps": 0}}, 2, "workload.rate_rps"),
        ({"offers": {"max_price_age_days": 1}}, 2, "days old"),
        ({"limits": {"L40": 1}}, 2, "unknown limit"),
        ({"limits": {"L4@mars": 1}}, 2, "unknown region"),
        ({"slo": {"tiers": [{"name": "a", "share": 0.5, "tpot_ms": 50}]}}, 2, "not 1"),
        ({"slo": {"tpot_ms": 50, "tiers": [{"name": "a", "share": 1, "tpot_ms": 50}]}}, 2, "for each tier"),
        ({"budget_usd_per_hour": 0.01}, 3, "budget_usd_per_hour to 0.71"),
        ({"engine": {"max_model_len": 512}}, 3, "exceed max_model_len"),
        ({"workload": {"lengths": "fixed:9000x10", "rate_rps": 1}}, 3, "exceed max_model_len"),
    )
    for number, (changes, code, words) in enumerate(cases):
        done = hgpu("plan", written(tmp_path, f"bad{number}", **changes))
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_a_million_requests_a_second_are_planned(hgpu: Run, tmp_path: Path) -> None:
    done = hgpu("plan", written(tmp_path, workload={"lengths": "chat", "rate_rps": 1e6}), "--json")
    document = json.loads(done.stdout)
    assert document["allocation"][0]["count"] > 1000 and document["solver"]["gap"] < 1e-3
    assert sum(row["rate_rps"] for row in document["routing"]) == pytest.approx(1e6)
