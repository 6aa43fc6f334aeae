import json
import re
from pathlib import Path

import pytest
from tests_types import MELANGE_TOY as TOY
from tests_types import Run

KEYS = {
    "status",
    "cost_usd_per_hour",
    "allocation",
    "baselines",
    "savings_vs_best_single_type",
    "routing",
    "solver",
    "provenance",
}


def spec(hgpu: Run, tmp_path: Path, *changes: tuple[str, str]) -> str:
    path = tmp_path / "spec.yaml"
    assert hgpu("init", "serve", "--out", str(path), "--force").returncode == 0
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return str(path)


def test_a_fresh_spec_is_planned_from_estimates_and_says_so(hgpu: Run, tmp_path: Path) -> None:
    done = hgpu("plan", spec(hgpu, tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) >= KEYS
    assert document["status"] == "optimal" and document["provenance"] == "estimated"
    assert set(document["allocation"][0]) >= {"offer", "gpu", "tp", "mode", "count", "usd_per_hour"}
    assert set(document["baselines"][0]) >= {"gpu", "count", "cost_usd_per_hour"}
    assert set(document["solver"]) >= {"name", "status", "gap", "build_s", "solve_s"}
    assert document["cost_usd_per_hour"] <= min(row["cost_usd_per_hour"] for row in document["baselines"])
    for row in document["routing"]:
        assert sum(row["shares"].values()) == pytest.approx(1.0)
    assert "no measurement" in done.stderr


def test_planning_again_gives_the_same_digest_and_lineage_walks_back(hgpu: Run, tmp_path: Path) -> None:
    path = spec(hgpu, tmp_path)
    first, second = (json.loads(hgpu("plan", path, "--json").stdout) for _ in range(2))
    assert first["digest"] == second["digest"] and first["path"] != second["path"]
    tree = json.loads(hgpu("show", "latest", "--lineage", "--json").stdout)
    assert tree["kind"] == "plan" and len(tree["inputs"]) == 4
    for latency in tree["inputs"]:
        assert latency["kind"] == "latency" and [row["kind"] for row in latency["inputs"]] == ["profile"]
        assert latency["problem"] is None
    assert len(json.loads(hgpu("list", "latency", "--json").stdout)) == 4


def test_a_sweep_plans_every_combination(hgpu: Run, tmp_path: Path) -> None:
    done = hgpu(
        "plan", spec(hgpu, tmp_path), "--sweep", "rate=1:4", "--sweep", "slo.tpot_ms=40,120", "--json"
    )
    cells = json.loads(done.stdout)["sweep"]
    assert [(c["values"]["workload.rate_rps"], c["values"]["slo.tpot_ms"]) for c in cells] == [
        (rate, tpot) for rate in (1, 2, 4) for tpot in (40, 120)
    ]
    costs = {tuple(c["values"].values()): c["cost_usd_per_hour"] for c in cells}
    assert costs[1, 120] <= costs[2, 120] <= costs[4, 120]
    assert all(costs[rate, 120] <= costs[rate, 40] for rate in (1, 2, 4))


def test_a_plan_says_what_a_million_tokens_and_a_month_cost(hgpu: Run, tmp_path: Path) -> None:
    path = spec(hgpu, tmp_path, ("lengths: chat", "lengths: fixed:300x100"), ("rate_rps: 4", "rate_rps: 10"))
    plan = json.loads(hgpu("plan", path, "--json").stdout)
    per_second = plan["cost_usd_per_hour"] / 3600
    assert plan["usd_per_million_output_tokens"] == pytest.approx(per_second / (10 * 100) * 1e6)
    assert plan["usd_per_million_tokens"] == pytest.approx(per_second / (10 * 400) * 1e6)
    shown = hgpu("show", "latest", "--kind", "plan").stdout
    assert f"{plan['cost_usd_per_hour'] * 730:,.0f} USD a month" in shown
    assert "as cheap as the best single type" in shown  # one type is all it rents


def test_a_melange_file_gives_the_same_document(hgpu: Run, tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(TOY))
    done = hgpu("plan", "--melange", str(path), "--json")
    document = json.loads(done.stdout)
    assert set(document) >= KEYS
    assert document["cost_usd_per_hour"] == pytest.approx(4.68)
    assert {row["gpu"]: row["count"] for row in document["baselines"]} == {"A10G": 12, "A100-80GB": 2}
    assert "4.68 USD/h" in hgpu("plan", "--melange", str(path)).stdout


def test_an_impossible_objective_is_answered_by_the_reason_and_exit_3(hgpu: Run, tmp_path: Path) -> None:
    done = hgpu("plan", spec(hgpu, tmp_path, ("tpot_ms: 120", "tpot_ms: 1")), "--json")
    assert done.returncode == 3
    lines = done.stderr.strip().splitlines()[-3:]
    assert [line.split(":")[0] for line in lines] == ["error", "why", "fix"]
    assert "above 1 ms" in lines[1] and "slo.tpot_ms to" in lines[2] and "H100-SXM" in lines[2]
    assert json.loads(done.stdout)["status"] == "infeasible"
    assert "Traceback" not in done.stderr


def test_the_objectives_that_an_error_proposes_can_be_planned(hgpu: Run, tmp_path: Path) -> None:
    """It must hold for all buckets at once: of the first that can't be served, others may ask for more."""
    done = hgpu(
        "plan", spec(hgpu, tmp_path, ("tpot_ms: 120", "tpot_ms: 8"), ("ttft_ms: 2000", "ttft_ms: 10"))
    )
    assert done.returncode == 3
    tpot, ttft = re.findall(r"slo\.\w+_ms to ([0-9.]+)", done.stderr)
    changes = (("tpot_ms: 120", f"tpot_ms: {tpot}"), ("ttft_ms: 2000", f"ttft_ms: {ttft}"))
    assert hgpu("plan", spec(hgpu, tmp_path, *changes)).returncode == 0


def test_a_context_that_is_too_short_is_answered_by_the_length_it_needs(hgpu: Run, tmp_path: Path) -> None:
    long = ("lengths: chat", "lengths: fixed:9000x10")
    done = hgpu("plan", spec(hgpu, tmp_path, long))
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1] == "fix: set engine.max_model_len to 9010 or more"
    longer = ("max_model_len: 8192", "max_model_len: 9010")
    assert hgpu("plan", spec(hgpu, tmp_path, long, longer)).returncode == 0


def test_a_degree_that_vllm_cant_split_the_heads_by_is_never_planned(hgpu: Run, tmp_path: Path) -> None:
    changes = (
        ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-7B"),
        ("tensor_parallel: [1]", "tensor_parallel: [4, 8]"),
    )
    plan = json.loads(hgpu("plan", spec(hgpu, tmp_path, *changes), "--json").stdout)
    assert {row["tp"] for row in plan["allocation"]} == {4}
    said = {row["point"]: row["reason"] for row in plan["forbidden"]}
    assert "28 attention heads" in said["L4 tp8"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--sweep", "rate=1,2", "--png", "sweep.txt"], "its name ends in none of"),
        (["--sweep", "rate=1,2", "--png", "none/sweep.png"], "there is no folder"),
        (["--png", "sweep.png"], "--png draws a sweep"),
    ],
)
def test_a_picture_that_cant_be_drawn_is_refused_before_anything_is_planned(
    hgpu: Run, tmp_path: Path, words: list[str], why: str
) -> None:
    done = hgpu("plan", spec(hgpu, tmp_path), *words)
    assert done.returncode == 2 and why in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "results" / "plan").exists()


def test_a_model_too_large_for_every_gpu_says_how_large(hgpu: Run, tmp_path: Path) -> None:
    done = hgpu("plan", spec(hgpu, tmp_path, ("Llama-3.1-8B-Instruct", "Llama-3.1-70B")))
    assert done.returncode == 3 and "weights take" in done.stderr and "tensor_parallel" in done.stderr


def test_a_limit_that_binds_is_named(hgpu: Run, tmp_path: Path) -> None:
    changes = (
        ("# limits: {L4: 10, ", "limits: {L4: 1} # "),
        ("[L4, A10G, A100-80GB, H100-SXM]", "[L4]"),
    )
    done = hgpu("plan", spec(hgpu, tmp_path, *changes))
    assert done.returncode == 3 and "L4: 1" in done.stderr


def test_min_engines_are_kept(hgpu: Run, tmp_path: Path) -> None:
    path = spec(hgpu, tmp_path, ("# min_engines: 2", "min_engines: 5"))
    document = json.loads(hgpu("plan", path, "--json").stdout)
    assert sum(row["engines"] for row in document["allocation"]) >= 5


def test_a_named_latency_model_is_used_and_a_foreign_one_refused(hgpu: Run, tmp_path: Path) -> None:
    path = spec(hgpu, tmp_path)
    hgpu("plan", path)
    digests = [row["digest12"] for row in json.loads(hgpu("list", "latency", "--json").stdout)]
    assert hgpu("plan", path, "--latency", digests[0]).returncode == 0
    other = spec(hgpu, tmp_path, ("meta-llama/Llama-3.1-8B-Instruct", "Qwen3-8B"))
    done = hgpu("plan", other, "--latency", digests[0])
    assert done.returncode == 2 and "doesn't fit the spec" in done.stderr


def test_latest_is_refused_under_ci(hgpu: Run, tmp_path: Path) -> None:
    path = spec(hgpu, tmp_path)
    assert hgpu("plan", path, env={"CI": "true"}).returncode == 0
    done = hgpu("show", "latest", env={"CI": "true"})
    assert done.returncode == 2 and "refused under CI" in done.stderr


def test_an_edited_plan_is_refused(hgpu: Run, tmp_path: Path) -> None:
    document = json.loads(hgpu("plan", spec(hgpu, tmp_path), "--json").stdout)
    manifest = tmp_path / document["path"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"served": 1.0', '"served": 0.5', 1))
    done = hgpu("show", document["digest"][:12])
    assert done.returncode == 2 and "damaged" in done.stderr and "Traceback" not in done.stderr


def test_results_that_cannot_be_written_are_a_clear_error(hgpu: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = hgpu("plan", spec(hgpu, tmp_path), "--results", str(tmp_path / "file"))
    assert done.returncode == 1 and "can't write" in done.stderr and "Traceback" not in done.stderr


def test_a_gpu_type_that_nobody_offers_is_said_not_dropped(hgpu: Run, tmp_path: Path) -> None:
    document = json.loads(hgpu("plan", spec(hgpu, tmp_path, ("A10G, ", "MI300X, ")), "--json").stdout)
    assert [row["reason"] for row in document["forbidden"] if row["point"] == "MI300X"] == [
        "no offer has it in the chosen clouds, regions and markets"
    ]
    alone = hgpu("plan", spec(hgpu, tmp_path, ("[L4, A10G, A100-80GB, H100-SXM]", "[MI300X]")))
    assert alone.returncode == 3 and "nothing offers MI300X" in alone.stderr
