"""The evaluation of Mélange (arXiv 2404.14527, section 6) planned by hgpu, beside the paper's figures.

    python benchmarks/melange/paper.py [--datasets arena pubmed mixed] [--percentile 99.5]
                                       [--plan-argument=--confidence=0.9]

One `hgpu plan --estimate` a dataset. The paper's objective is on TPOT, averaged over a request's
tokens, and it reports that at least 99.5 % of requests keep it: so percentile 99.5. The profiler
of its release prints the *mean* over all tokens; if profiles took the highest rate whose mean
keeps the objective, `--percentile 50` comes near to that.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from setting import (
    ARENA_COUNTS,
    ARENA_USD_PER_HOUR,
    DATASETS,
    GPUS,
    RATES_RPS,
    SAVINGS,
    TPOTS_MS,
    model_folder,
    spec,
)

LOW_RATES_RPS = RATES_RPS[:3]
TOLERANCE_USD = 1e-6


@dataclass(frozen=True, slots=True)
class Cell:
    """One rate and objective of one dataset: the plan's document, as `hgpu plan --json` prints it."""

    dataset: str
    document: dict[str, Any]

    @property
    def rate_rps(self) -> int:
        return int(self.document["values"]["workload.rate_rps"])

    @property
    def tpot_ms(self) -> int:
        return int(self.document["values"]["slo.tpot_ms"])

    @property
    def usd_per_hour(self) -> float:
        return float(self.document["cost_usd_per_hour"])

    @property
    def single_usd_per_hour(self) -> list[float]:
        """Costs of the single-type fleets that can serve the workload."""
        rows = self.document["baselines"]
        return [row["cost_usd_per_hour"] for row in rows if row["cost_usd_per_hour"] is not None]

    @property
    def mix_wins(self) -> bool:
        """True where the plan is strictly cheaper than every single type."""
        return self.usd_per_hour < min(self.single_usd_per_hour, default=float("inf")) - TOLERANCE_USD

    def saving(self, single_usd_per_hour: float) -> float:
        return 1 - self.usd_per_hour / single_usd_per_hour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--percentile", type=float, default=99.5, help="of requests that keep the objective")
    parser.add_argument("--plan-argument", action="append", default=[], help="one more argument of hgpu plan")
    parser.add_argument("--in-flight", type=int, help="the most requests that an engine runs at once")
    parser.add_argument("--scale", type=int, default=1, help="times the paper's rates, for fleets as large")
    options = parser.parse_args()
    cells = []
    for dataset in options.datasets:
        planned = plan(dataset, options)
        cells += planned
        for tpot_ms in TPOTS_MS:
            show(dataset, tpot_ms, [cell for cell in planned if cell.tpot_ms == tpot_ms])
    summarise(cells, options.scale)


def plan(dataset: str, options: argparse.Namespace) -> list[Cell]:
    """Run `hgpu plan` over rates and objectives; return the cells in the order of the sweep."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spec.yaml"
        made = spec(dataset, model_folder(Path(folder)), options.percentile, options.in_flight)
        file.write_text(yaml.safe_dump(made))
        command = [sys.executable, "-m", "hgpu", "plan", str(file), "--estimate", "--json"]
        command += options.plan_argument
        rates = [rate * options.scale for rate in RATES_RPS]
        for name, values in (("slo.tpot_ms", TPOTS_MS), ("rate", rates)):
            command += ["--sweep", f"{name}={','.join(map(str, values))}"]
        done = subprocess.run(
            [*command, "--results", str(Path(folder) / "results")],
            capture_output=True,
            text=True,
            env=dict(os.environ),
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    document = json.loads(done.stdout)
    return [Cell(dataset, cell) for cell in document["sweep"]]


def show(dataset: str, tpot_ms: int, cells: list[Cell]) -> None:
    """Print a dataset's table at one objective."""
    arena = dataset == "arena"
    print(f"\n### {dataset}, {tpot_ms} ms\n")
    print(f"Paper: saves {SAVINGS[dataset][tpot_ms]} % against single types. {left_out(cells)}\n")
    theirs = "| paper: Mélange | paper: L4, A10G, A100, H100 alone " if arena else ""
    print(f"| req/s | plan | USD/h | L4, A10G, A100, H100 alone | saves: best, dearest single {theirs}|")
    print(f"|---:|---|---:|---|---|{'---:|---|' if arena else ''}")
    for number, cell in enumerate(cells):
        cost = f"{ARENA_USD_PER_HOUR[tpot_ms][number]:.2f}" if arena else ""
        counts = ", ".join(str(ARENA_COUNTS[tpot_ms][gpu][number]) for gpu in GPUS)
        print(f"| {cell.rate_rps} {ours(cell)} |" + (f" {cost} | {counts} |" if arena else ""))


def left_out(cells: list[Cell]) -> str:
    workloads = [cell.document["workload"] for cell in cells if "workload" in cell.document]
    return f"hgpu leaves out {workloads[0]['outside_share']:.2%} of the requests." if workloads else ""


def ours(cell: Cell) -> str:
    """Return the cells of our plan in a row of the table."""
    if cell.document["status"] == "infeasible":
        return f"| infeasible: {cell.document['why']} | | | "
    mix = " + ".join(f"{row['count']} {row['gpu']}" for row in cell.document["allocation"])
    counts = {row["gpu"]: row["count"] for row in cell.document["baselines"]}
    singles = cell.single_usd_per_hour
    alone = ", ".join(str(counts.get(gpu) or "–") for gpu in GPUS)
    saved = f"{cell.saving(min(singles)):.0%}, {cell.saving(max(singles)):.0%}" if singles else "–"
    return f"| {mix} | {cell.usd_per_hour:.2f} | {alone} | {saved}"


def summarise(cells: list[Cell], scale: int) -> None:
    """Print in how many cells a mix wins, and the largest savings at the low rates."""
    solved = [cell for cell in cells if cell.document["status"] != "infeasible"]
    wins = [cell for cell in solved if cell.mix_wins]
    low_rates = [rate * scale for rate in LOW_RATES_RPS]
    low = [c for c in solved if c.rate_rps in low_rates and c.single_usd_per_hour]
    print(f"\nA mix is strictly cheaper than every single type in {len(wins)} of {len(cells)} cells ", end="")
    print(f"({len(cells) - len(solved)} infeasible).")
    for against, pick in (("the best", min), ("the dearest", max)):
        if low:
            best = max(low, key=lambda cell: cell.saving(pick(cell.single_usd_per_hour)))
            saved = best.saving(pick(best.single_usd_per_hour))
            print(f"Largest saving at {low_rates} req/s against {against} single type: {saved:.0%} ", end="")
            print(f"({best.dataset}, {best.tpot_ms} ms, {best.rate_rps} req/s).")


if __name__ == "__main__":
    main()
