"""The committed step times of expert caches are as near and as fast as their page says."""

import csv
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2] / "benchmarks" / "experts"
ROWS = list(csv.DictReader((FOLDER / "step_time.csv").read_text(encoding="utf-8").splitlines()))


def test_every_predicted_step_is_within_a_tenth_of_the_simulated_one() -> None:
    off = [float(row["predicted_ms"]) / float(row["simulated_ms"]) - 1 for row in ROWS]
    assert len(ROWS) > 200 and np.abs(off).max() <= 0.1
    assert f"{np.abs(off).max():.1%} at most" in (FOLDER / "step_time.md").read_text(encoding="utf-8")


def test_a_quarter_of_qwens_experts_doubles_the_speed_of_loading_on_demand() -> None:
    quarter = [
        row for row in ROWS if (row["model"], row["cache"], row["batch"]) == ("Qwen3-30B-A3B", "0.25", "1")
    ]
    rows = [row for row in quarter if row["way"].startswith("pinned_lfu")]
    assert {row["link_gb_s"] for row in rows} == {"25", "50"} and len(rows) == 6
    for row in rows:
        demand = next(one for one in quarter if one["gpu"] == row["gpu"] and one["way"] == "on_demand")
        assert float(demand["simulated_ms"]) / float(row["simulated_ms"]) >= 2
        assert float(row["gb_a_step"]) < float(demand["gb_a_step"]) / 2
