"""Plans, fits and simulations are compared exactly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.made_loads import save_load
from tests_types import Run

from hgpu.artifacts.manifest import InputRef, Validity
from hgpu.artifacts.store import Artifact, Draft, load, save

GOLDEN = Path(__file__).parents[1] / "artifacts" / "golden"
Change = Callable[[dict[str, Any]], object]


def golden(kind: str, version: int) -> Artifact[Any]:
    return load(GOLDEN / f"{kind}.v{version}")


def altered(root: Path, base: Artifact[Any], change: Change = lambda _: None, **more: Any) -> str:
    """Save `base` with a changed payload, and return its path."""
    document = base.payload.model_dump(mode="json")
    change(document)
    payload = type(base.payload).model_validate_json(json.dumps(document))
    keep = {"inputs": base.manifest.inputs, "environment": base.manifest.environment}
    return str(save(root, Draft(base.manifest.kind, "made", payload, **{**keep, **more})).path)


def verdict(hgpu: Run, base: str, head: str, *words: str) -> tuple[int, dict[str, str], list[str]]:
    done = hgpu("bench", "compare", base, head, *words, "--json")
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    return (
        done.returncode,
        {f"{row['point']} {row['metric']}".strip(): row["verdict"] for row in document["rows"]},
        document["reasons"],
    )


@pytest.mark.parametrize(
    ("change", "code", "metric", "told"),
    [
        (lambda p: None, 0, "cost", "ok"),
        (lambda p: p.update(cost_usd_per_hour=p["cost_usd_per_hour"] * (1 + 1e-12)), 0, "cost", "ok"),
        (lambda p: p.update(cost_usd_per_hour=p["cost_usd_per_hour"] * 1.0001), 3, "cost", "regressed"),
        (lambda p: p.update(cost_usd_per_hour=p["cost_usd_per_hour"] * 0.9), 0, "cost", "improved"),
        (lambda p: p.update(idle_usd_per_hour=0.5), 3, "cost", "regressed"),
        (lambda p: p.update(served=0.9), 3, "served", "regressed"),
        (lambda p: p.update(status="feasible"), 3, "proven optimal", "regressed"),
        (lambda p: p["allocation"][0].update(count=7), 5, "fleet", "inconclusive"),
    ],
)
def test_a_plan_is_its_cost_what_it_serves_its_proof_and_its_fleet(
    hgpu: Run, tmp_path: Path, change: Change, code: int, metric: str, told: str
) -> None:
    base = golden("plan", 2)
    found, rows, _ = verdict(hgpu, str(base.path), altered(tmp_path, base, change))
    assert (found, rows[metric]) == (code, told)


def test_another_fleet_is_fine_where_it_costs_less(hgpu: Run, tmp_path: Path) -> None:
    def cheaper(payload: dict[str, Any]) -> None:
        payload["cost_usd_per_hour"] *= 0.9
        payload["allocation"][0]["count"] = 7

    base = golden("plan", 2)
    code, rows, _ = verdict(hgpu, str(base.path), altered(tmp_path, base, cheaper))
    assert code == 0 and rows["fleet"] == "ok" and rows["cost"] == "improved"


def test_plans_of_another_promise_are_not_comparable(hgpu: Run, tmp_path: Path) -> None:
    base = golden("plan", 2)
    head = altered(tmp_path, base, lambda p: p.update(confidence=0.75))
    code, rows, reasons = verdict(hgpu, str(base.path), head)
    assert code == 4 and not rows and "confidence" in reasons[0]
    assert verdict(hgpu, str(base.path), head, "--allow", "confidence")[0] == 0


def test_a_fit_is_its_error_on_the_same_samples(hgpu: Run, tmp_path: Path) -> None:
    base = golden("latency", 2)

    def worse(payload: dict[str, Any]) -> None:
        payload["latency"]["p90_error"] += 1e-6

    code, rows, _ = verdict(hgpu, str(base.path), altered(tmp_path, base, worse))
    assert code == 3 and rows["all p90 error"] == "regressed" and rows["all median error"] == "ok"
    other = [InputRef(role="profile", kind="profile", digest="e" * 64)]
    code, _, reasons = verdict(hgpu, str(base.path), altered(tmp_path, base, inputs=other))
    assert code == 4 and "samples" in reasons[0]


def test_a_simulation_is_its_attainment(hgpu: Run, tmp_path: Path) -> None:
    base = golden("simulation", 1)

    def missed(payload: dict[str, Any]) -> None:
        payload["runs"][0]["objectives"][0]["attainment"] -= 1e-4

    code, rows, reasons = verdict(hgpu, str(base.path), altered(tmp_path, base, missed))
    assert code == 3 and "attainment" in reasons[0] and sorted(rows.values()).count("regressed") == 1
    fewer = altered(tmp_path, base, lambda p: p["runs"].pop())
    code, _, reasons = verdict(hgpu, str(base.path), fewer)
    assert code == 5 and any("only one side has it" in reason for reason in reasons)


def test_what_is_not_valid_is_not_compared(hgpu: Run, tmp_path: Path) -> None:
    base = golden("plan", 2)
    head = altered(tmp_path, base, validity=Validity(valid=False, reasons=["the solver was killed"]))
    code, _, reasons = verdict(hgpu, str(base.path), head)
    assert code == 4 and "the solver was killed" in reasons[0]


def test_kinds_and_numbers_must_fit(hgpu: Run, tmp_path: Path) -> None:
    plan, latency, profile = golden("plan", 2), golden("latency", 2), golden("profile", 2)
    made = save_load(tmp_path / "results", 1)
    for words, text in (
        ([plan.path, latency.path], "can't compare latency with plan"),
        ([plan.path, made.path], "can't compare load with plan"),
        ([profile.path, profile.path], "can't compare profile"),
        ([f"{plan.path},{plan.path}", plan.path], "compared with one other"),
        ([plan.path, plan.path, "--tolerance", "cost=0.1"], "compared exactly"),
        ([plan.path, plan.path, "--aa"], "compared exactly"),
    ):
        done = hgpu("bench", "compare", *(str(word) for word in words))
        assert done.returncode == 2 and text in done.stderr, done.stderr
