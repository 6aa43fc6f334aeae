"""Comparisons of a thing with itself widen the tolerances of later ones, up to a limit."""

import json
from pathlib import Path

import pytest
from bench.made_loads import KEYS, Load, save_arm
from tests_types import Run

from hgpu.artifacts.payloads.comparison import (
    Arm,
    ComparedRow,
    ComparisonPayload,
    Effect,
    ToleranceSource,
    Verdict,
)
from hgpu.bench.history import NO_HISTORY, history_of, tolerance_of
from hgpu.bench.metrics import METRICS

ARM = Arm(digests=[], runs={})


def past(
    change: float, like_with_like: bool = True, key: str = "a", metric: str = "ttft_p50"
) -> ComparisonPayload:
    row = ComparedRow(
        point="p", metric=metric, unit="s", lower_is_better=True, confirmatory=True, effect=Effect.RATIO,
        base=1.0, head=1.0 + change, change=change, low=None, high=None, tolerance=0.05,
        tolerance_source=ToleranceSource.DEFAULT, p=None, verdict=Verdict.OK, reason="", more_runs=None,
    )  # fmt: skip
    return ComparisonPayload(
        compares="load", base=ARM, head=ARM, comparability={"engine": key}, mismatches=[], unknown=[],
        like_with_like=like_with_like, confidence=0.9, resamples=1, seed=0, history=0, rows=[row],
        verdict=Verdict.OK, reasons=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ([0.08] * 4, 0.05),  # too few
        ([0.08] * 5, 0.08),
        ([-0.08, 0.08] * 3, 0.08),  # either way
        ([0.02] * 9, 0.05),  # quieter than the tolerance: it is never narrowed
        ([0.5] * 9, 0.10),  # never beyond twice
    ],
)
def test_the_band_is_what_the_past_showed(changes: list[float], tolerance: float) -> None:
    history = history_of([past(change) for change in changes], {"engine": "a"})
    found = tolerance_of(METRICS["ttft_p50"], "p", {}, history)
    assert found.value == pytest.approx(tolerance)
    assert (found.source is ToleranceSource.HISTORY) == (found.value > 0.05)
    assert tolerance_of(METRICS["ttft_p50"], "other", {}, history).value == 0.05
    assert tolerance_of(METRICS["tpot_p50"], "p", {}, history).value == 0.05
    assert tolerance_of(METRICS["ttft_p50"], "p", {"ttft_p50": 0.01}, history).value == 0.01


def test_only_like_with_like_of_the_same_comparability_counts() -> None:
    rows = [past(0.08, like_with_like=False)] * 9 + [past(0.08, key="b")] * 9
    assert history_of(rows, {"engine": "a"}) == NO_HISTORY
    spoiled = past(0.08).model_copy(update={"verdict": Verdict.INVALID})
    assert history_of([spoiled] * 9, {"engine": "a"}) == NO_HISTORY


def test_a_noisy_service_teaches_the_gate_its_band(hgpu: Run, tmp_path: Path) -> None:
    root, loud = tmp_path / "results", Load(requests=120, run_sd=0.10)
    for start in range(0, 60, 10):
        arms = [save_arm(root, range(start + i, start + i + 3), loud) for i in (0, 5)]
        assert hgpu("bench", "compare", *arms, "--aa").returncode in (0, 3, 5)
    arms = [save_arm(root, range(start, start + 3), loud) for start in (100, 110)]
    told = json.loads(hgpu("bench", "compare", *arms, "--json").stdout)
    widened = {
        row["metric"]: row["tolerance"] for row in told["rows"] if row["tolerance_source"] == "history"
    }
    assert told["history"] == 6 and 0.05 < widened["ttft_p50"] <= 0.10
    assert "from 6 comparisons of like with like" in hgpu("bench", "compare", *arms).stdout
    elsewhere = [
        save_arm(root, range(start, start + 3), Load(keys={**KEYS, "engine": "vllm 0.33.0"}))
        for start in (0, 9)
    ]
    assert json.loads(hgpu("bench", "compare", *elsewhere, "--json").stdout)["history"] == 0
    empty = json.loads(hgpu("bench", "compare", *arms, "--history", "nowhere", "--json").stdout)
    assert empty["history"] == 0
