"""How often the gate cries wolf, and how often it sees a slow-down, on made runs whose truth is known.

python benchmarks/gate/calibrate.py [--comparisons 100] [--seed 1]
"""

import argparse
import os
import platform
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from noise import Noise, made_arms

from hgpu.artifacts.payloads.comparison import ComparedRow, Verdict
from hgpu.bench.judging import GateOptions, compare_runs
from hgpu.bench.verdicts import summary

REQUESTS = 600
RUN_SDS, RUNS = (0.01, 0.015, 0.02, 0.03), (3, 5, 10)
SLOWER = (1.0, 1.05, 1.10, 0.90)  # 1.05 is the tolerance of a median: the worst case for false alarms


@dataclass(frozen=True, slots=True)
class Case:
    run_sd: float
    runs: int
    slower: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=100, help="of each case")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} shared cores")
    print("\n| run to run | runs an arm | head | regressed | improved | inconclusive | ok | covered |")
    print("|---:|---:|---|---:|---:|---:|---:|---:|")
    for run_sd in RUN_SDS:
        for runs in RUNS:
            for slower in SLOWER:
                line(Case(run_sd, runs, slower), given.comparisons, given.requests, given.seed)


def line(case: Case, comparisons: int, requests: int, seed: int) -> None:
    verdicts, covered = calibrated(case, comparisons, requests, seed)
    shares = " | ".join(
        f"{verdicts[verdict] / comparisons:.0%}"
        for verdict in (Verdict.REGRESSED, Verdict.IMPROVED, Verdict.INCONCLUSIVE, Verdict.OK)
    )
    name = "the same" if case.slower == 1.0 else f"{case.slower - 1:+.0%} latency"
    print(f"| {case.run_sd:.1%} | {case.runs} | {name} | {shares} | {covered:.0%} |", flush=True)


def calibrated(case: Case, comparisons: int, requests: int, seed: int) -> tuple[Counter[Verdict], float]:
    """Return how often each verdict came, and the part of latency intervals that held the true change."""
    noise, truth = Noise(run_sd=case.run_sd), case.slower - 1.0
    verdicts: Counter[Verdict] = Counter()
    held: list[bool] = []
    for number in range(comparisons):
        rng = np.random.default_rng([seed, number])
        base, head = made_arms(noise, case.runs, requests, case.slower, rng)
        rows = compare_runs({"load": base}, {"load": head}, GateOptions(seed=number))
        verdicts[summary(rows, [])[0]] += 1
        held += [holds(row, truth) for row in rows if row.unit == "s"]
    return verdicts, float(np.mean(held))


def holds(row: ComparedRow, truth: float) -> bool:
    return row.low is not None and row.high is not None and row.low <= truth <= row.high


if __name__ == "__main__":
    main()
