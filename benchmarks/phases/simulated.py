"""Nexus's ablation in the simulator: the queue's order, a budget and two lanes, one by one and together.

    python benchmarks/phases/simulated.py [--csv simulated.csv] [--seconds 600] [--processes 2]

Every figure is simulated, on step times of rooflines; nothing ran on a GPU.
"""

import argparse
import csv
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import fmean

from settings import SETTINGS, Setting, engine_of, latency_of, partition_of

from runs import (
    AGEING_TOK_PER_S,
    ARMS,
    BOTH,
    FASTER,
    FCFS,
    LANES,
    LANES_SPF,
    SPF,
    Arm,
    Job,
    Row,
    best_share,
    measured,
    saturation_rps,
)

LIGHT = 0.1
LOADS = (LIGHT, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2)
SHOWN = (LIGHT, 0.7, 0.9, 1.2)
PAST_KNEE = (0.9, 0.95, 1.0, 1.1, 1.2)
SEEDS = (1, 2, 3)
AGEINGS = (1.0, 5.0, AGEING_TOK_PER_S, 50.0, 150.0)
AGED = 1  # the setting that is shown under other ageings
ENOUGH = 0.9  # of the requests within both objectives

Runs = dict[tuple[str, str, float], list[Row]]  # by setting, arm and load: a run a seed
Means = dict[tuple[str, str, float], Row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--csv", type=Path, help="where to write every run")
    parser.add_argument("--seconds", type=float, default=600.0, help="of arrivals in each run")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    began_s = time.perf_counter()
    with ProcessPoolExecutor(given.processes) as pool:
        lanes = list(product(SETTINGS, dict.fromkeys(arm.compute_saturates for arm in ARMS)))
        shares = dict(zip(lanes, pool.map(best_share, *zip(*lanes, strict=True)), strict=True))
        jobs = [
            Job(setting, arm, load, seed, given.seconds, shares[setting, arm.compute_saturates])
            for setting, load, arm, seed in product(SETTINGS, LOADS, ARMS, SEEDS)
        ]
        agers = [Arm(f"γ = {ageing:g}", ageing) for ageing in AGEINGS]
        jobs += [
            Job(SETTINGS[AGED], arm, load, seed, given.seconds, 0.0)
            for load, arm, seed in product(PAST_KNEE, agers, SEEDS)
        ]
        rows = list(pool.map(measured, jobs, chunksize=4))
    took_s = time.perf_counter() - began_s
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}: {len(rows)} runs in {took_s:.0f} s")
    if given.csv:
        write_csv(given.csv, rows)
    runs: Runs = {}
    for row in rows:
        runs.setdefault((row.setting, row.arm, row.load), []).append(row)
    for setting in SETTINGS:
        describe(setting, {at: share for (named, at), share in shares.items() if named == setting})
        table(runs, setting, SHOWN, ARMS)
    print("\nOther ageings, SPF alone:")
    table(runs, SETTINGS[AGED], (1.2,), agers)
    beside_nexus({key: mean(same) for key, same in runs.items()})


def mean(rows: Sequence[Row]) -> Row:
    """Return the mean over the seeds."""
    numbers = [field.name for field in fields(Row)[4:]]
    return replace(rows[0], **{name: fmean(getattr(row, name) for row in rows) for name in numbers})


def describe(setting: Setting, shares: dict[float, float]) -> None:
    engine = engine_of(setting)
    kv_tokens = latency_of(setting).kv_capacity_tokens
    print(
        f"\n{setting.name}: saturated at {saturation_rps(setting):.2f} requests/s; objectives TTFT "
        f"{setting.ttft_s:g} s, TPOT {setting.tpot_s * 1e3:g} ms; {engine.max_num_batched_tokens} tokens and "
        f"{engine.max_num_seqs} sequences a step, {kv_tokens:,} tokens of KV cache; "
        f"{describe_lanes(setting, shares)}"
    )


def describe_lanes(setting: Setting, shares: dict[float, float]) -> str:
    rows = []
    for saturates, share in shares.items():
        contention = partition_of(setting, share, saturates).contention
        where = "" if saturates == 1 else f" where {saturates:.0%} saturate compute"
        rows.append(f"{share:.0%} of the SMs for prompts{where} (contention {contention:.2f})")
    return f"lanes: {', '.join(rows)}"


def table(runs: Runs, setting: Setting, loads: Sequence[float], arms: Sequence[Arm]) -> None:
    """Print a row a load and arm: the mean over the seeds; of the mean TTFT the lowest and highest too."""
    print("\n| load | arm | TTFT mean, s (seeds) | p95 | p99 | longest | TPOT mean, ms | p95 | p99 ", end="")
    print("| output tok/s | in time | goodput, rps |\n|---|---|" + "---:|" * 10)
    for load, arm in product(loads, arms):
        same = runs[setting.name, arm.name, load]
        row, ttfts_s = mean(same), [row.ttft_mean_s for row in same]
        waits = (row.ttft_p95_s, row.ttft_p99_s, row.ttft_max_s)
        paces = (row.tpot_mean_s, row.tpot_p95_s, row.tpot_p99_s)
        cells = [f"{load:g}", arm.name, f"{row.ttft_mean_s:.2f} ({min(ttfts_s):.2f}–{max(ttfts_s):.2f})"]
        cells += [*(f"{s:.2f}" for s in waits), *(f"{1e3 * s:.0f}" for s in paces)]
        cells += [f"{row.output_tok_per_s:.0f}", f"{row.met:.0%}", f"{row.goodput_rps:.2f}"]
        print(f"| {' | '.join(cells)} |")


def beside_nexus(found: Means) -> None:
    """Print Nexus's figures and what the simulation has for them, from the lowest to the highest."""
    comparisons = (
        ("mean TTFT, stock ÷ lanes + SPF", "2–20", ratios(found, FCFS, LANES_SPF, "ttft_mean_s")),
        ("mean TTFT, stock ÷ lanes 0.8 + SPF", "2–20", ratios(found, FCFS, FASTER, "ttft_mean_s")),
        ("mean TTFT, stock ÷ SPF + budget", "2–20", ratios(found, FCFS, BOTH, "ttft_mean_s")),
        ("p95 TTFT, stock ÷ lanes + SPF", "2–3", ratios(found, FCFS, LANES_SPF, "ttft_p95_s")),
        ("p95 TTFT, stock ÷ lanes 0.8 + SPF", "2–3", ratios(found, FCFS, FASTER, "ttft_p95_s")),
        ("p95 TTFT, stock ÷ SPF + budget", "2–3", ratios(found, FCFS, BOTH, "ttft_p95_s")),
        ("mean TPOT, stock ÷ lanes + SPF", "1.24–1.48", ratios(found, FCFS, LANES_SPF, "tpot_mean_s")),
        ("mean TPOT, stock ÷ SPF + budget", "1.24–1.48", ratios(found, FCFS, BOTH, "tpot_mean_s")),
        ("mean TTFT, SPF ÷ stock", "0.1 at best", ratios(found, SPF, FCFS, "ttft_mean_s")),
        ("mean TTFT, lanes ÷ stock", "1.30", ratios(found, LANES, FCFS, "ttft_mean_s")),
        ("mean TPOT, lanes ÷ stock", "0.86", ratios(found, LANES, FCFS, "tpot_mean_s")),
        ("mean TTFT, lanes + SPF ÷ SPF", "0.77", ratios(found, LANES_SPF, SPF, "ttft_mean_s")),
        ("mean TPOT, lanes + SPF ÷ SPF", "0.74", ratios(found, LANES_SPF, SPF, "tpot_mean_s")),
        ("mean TTFT, lanes 0.8 + SPF ÷ SPF", "0.77", ratios(found, FASTER, SPF, "ttft_mean_s")),
        ("mean TPOT, lanes 0.8 + SPF ÷ SPF", "0.74", ratios(found, FASTER, SPF, "tpot_mean_s")),
        ("mean TTFT, SPF + budget ÷ SPF", "–", ratios(found, BOTH, SPF, "ttft_mean_s")),
        ("mean TPOT, SPF + budget ÷ SPF", "–", ratios(found, BOTH, SPF, "tpot_mean_s")),
    )
    names = [setting.name for setting in SETTINGS]
    print(f"\nLoads {PAST_KNEE[0]} to {PAST_KNEE[-1]}, simulated:\n")
    print(f"| | Nexus, measured | {' | '.join(names)} |\n|---|---|" + "---|" * len(names))
    for label, published, ratio in comparisons:
        cells = [f"{min(ratio(name)):.2f}–{max(ratio(name)):.2f}" for name in names]
        print(f"| {label} | {published} | {' | '.join(cells)} |")
    print(f"\nHighest load with {ENOUGH:.0%} of the requests in time, and at every lower one:\n")
    print(f"| arm | {' | '.join(names)} |\n|---|" + "---:|" * len(names))
    for arm in ARMS:
        print(f"| {arm.name} | {' | '.join(highest_load(found, name, arm.name) for name in names)} |")


def ratios(found: Means, over: str, under: str, measure: str) -> Callable[[str], list[float]]:
    """Return what gives the ratios of a setting, one a load past the knee."""

    def of(setting: str) -> list[float]:
        pairs = [(found[setting, over, load], found[setting, under, load]) for load in PAST_KNEE]
        return [getattr(above, measure) / getattr(below, measure) for above, below in pairs]

    return of


def highest_load(found: Means, setting: str, arm: str) -> str:
    """Return the highest load up to which enough requests are in time at every load of the sweep."""
    kept = "none"
    for load in LOADS:
        if found[setting, arm, load].met < ENOUGH:
            break
        kept = f"{load:g}"
    return kept


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            short = {key: f"{value:.5g}" for key, value in asdict(row).items() if isinstance(value, float)}
            writer.writerow({**asdict(row), **short})


if __name__ == "__main__":
    main()
