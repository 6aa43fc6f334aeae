"""How fast the simulator is: requests simulated a second, alone and in fleets, and `hgpu estimate`.

    python benchmarks/simulator/run.py [--trace AZURE.csv] [--prefix-trace MOONCAKE.jsonl] [--rows 1000]

Without a trace, one of the Azure code trace's size is drawn from the bundled `sharegpt` and
`longdata` lengths with Poisson arrivals; without a trace of prefixes, half of each `longdata` prompt is
the beginning of one of a hundred documents.
"""

import argparse
import csv
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hgpu.artifacts.store import Draft, save
from hgpu.catalog.models import load_model
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Bucket
from hgpu.latency.select import estimated
from hgpu.simulator.arrivals import ClosedLoop
from hgpu.simulator.balance import BALANCERS
from hgpu.simulator.engine import simulate
from hgpu.simulator.fleet import EnginePool, Fleet
from hgpu.simulator.fleet import replay as fleet_replay
from hgpu.simulator.routing import Routing
from hgpu.workloads.readers import read_trace
from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Trace, ordered_trace

MODEL, GPU = "meta-llama/Llama-3.1-8B", "H100-SXM"
ENGINE = EngineOptions(max_num_batched_tokens=8192, max_num_seqs=1024, max_model_len=16_384)
CONTEXT = 131_072  # of requests with prefixes
LOADS = (0.2, 0.5, 0.7, 0.9)
COUNTS = (1_000, 8_819, 50_000)
FLEETS = (1, 2, 10, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trace", type=Path, help="a trace that hgpu reads, as the Azure code trace")
    parser.add_argument("--prefix-trace", type=Path, help="a Mooncake trace with hash_ids")
    parser.add_argument("--rows", type=int, default=1000, help="rows for hgpu estimate; 0: leave that out")
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, Python {platform.python_version()}")
    print(f"step model: roofline of {MODEL} on {GPU}, {ENGINE.max_num_batched_tokens} tokens a step\n")
    with tempfile.TemporaryDirectory() as folder:
        latency = estimated(
            Path(folder), load_model(MODEL), OperatingPoint(GPU, engine=ENGINE)
        ).payload.latency
    print("| workload | load | requests | steps | mean batch | preemptions | seconds | requests/s |")
    print("|---|---|---|---|---|---|---|---|")
    if options.trace:
        replay(latency, options.trace.name, read_trace(options.trace))
    else:
        replay(latency, "sharegpt", poisson_trace("sharegpt", 1.0, requests=8_819))
        replay(latency, "longdata", poisson_trace("longdata", 1.0, requests=8_819))
    for count in COUNTS:
        replay(latency, f"sharegpt × {count:,}", poisson_trace("sharegpt", 1.0, requests=count), (0.7,))
    fleets(
        latency,
        read_trace(options.trace) if options.trace else poisson_trace("longdata", 1.0, requests=8_819),
    )
    prefixes(latency, read_trace(options.prefix_trace) if options.prefix_trace else documents())
    if options.rows:
        print(f"\nhgpu estimate, {options.rows} rows: {estimate_rows(options.rows)}")


def machine() -> str:
    """Name the processor and how many of its cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name or platform.processor()}, {cores} cores"


def replay(latency: LatencyModel, name: str, trace: Trace, loads: tuple[float, ...] = LOADS) -> None:
    """Print a row a load: the trace's arrivals, scaled to that part of what a full engine gets through."""
    full = simulate(latency, ENGINE, ClosedLoop(trace.requests, trace.input_tokens, trace.output_tokens))
    capacity_rps = trace.requests / full.makespan_s
    for load in loads:
        scaled = replace(trace, arrivals_s=trace.arrivals_s * (trace.rate_rps / (load * capacity_rps)))
        seconds, run = min((timed(latency, scaled) for _ in range(3)), key=lambda pair: pair[0])
        print(
            f"| {name} | {load:.1f} | {trace.requests:,} | {run.steps:,} | {run.mean_batch:.1f} "
            f"| {run.preemptions.sum():,} | {seconds:.2f} | {trace.requests / seconds:,.0f} |"
        )


def fleets(latency: LatencyModel, trace: Trace) -> None:
    """Print a row a number of engines: the seconds under each balancing policy, each engine loaded to 0.7."""
    full = simulate(latency, ENGINE, ClosedLoop(trace.requests, trace.input_tokens, trace.output_tokens))
    print(f"\n| engines of a fleet | {' | '.join(f'{name}, s' for name in BALANCERS)} |")
    print("|---|" + "---|" * len(BALANCERS))
    everything = Bucket(0, 10**9, 0, 10**9, 1.0, 1.0, 1.0)
    for engines in FLEETS:
        rate_rps = 0.7 * engines * trace.requests / full.makespan_s
        scaled = replace(trace, arrivals_s=trace.arrivals_s * (trace.rate_rps / rate_rps))
        pool = EnginePool("all", latency, ENGINE, engines, engines, 1.0)
        fleet = Fleet((pool,), Routing((everything,), ((1.0,),)))
        seconds = [min(timed_fleet(fleet, scaled, name) for _ in range(3)) for name in BALANCERS]
        print(f"| {engines} | {' | '.join(f'{value:.2f}' for value in seconds)} |")


def documents() -> Trace:
    """Draw prompts of which the first half is the beginning of one of a hundred documents."""
    trace, draw = poisson_trace("longdata", 2.0, requests=8_819), random.Random(0)
    hashes = [
        tuple(range(1000 * document, 1000 * document + tokens // 2 // 512))
        for document, tokens in ((draw.randrange(100), tokens) for tokens in trace.input_tokens.tolist())
    ]
    return replace(trace, name="documents", prefix_blocks=tuple(hashes), block_tokens=512)


def prefixes(latency: LatencyModel, trace: Trace) -> None:
    """Print a row without prefix caching, then one a size of the cache with it."""
    assert trace.prefix_blocks is not None
    kept = np.flatnonzero(trace.input_tokens + trace.output_tokens <= CONTEXT)
    columns = (trace.arrivals_s, trace.input_tokens, trace.output_tokens)
    hashes = tuple(trace.prefix_blocks[number] for number in kept)
    served = ordered_trace(
        trace.name, *(column[kept] for column in columns), trace.source, hashes, trace.block_tokens
    )
    print("\n| workload | requests | mean prompt | KV tokens | prefix hits | busy | seconds | requests/s |")
    print("|---|---|---|---|---|---|---|---|")
    for caching, times in ((False, 1), (True, 1), (True, 100)):
        large = replace(latency, kv_capacity_tokens=times * latency.kv_capacity_tokens)
        seconds, run = min((timed(large, served, caching) for _ in range(3)), key=lambda pair: pair[0])
        hits = f"{run.hit_tokens.sum() / served.input_tokens.sum():.1%}" if caching else "off"
        print(
            f"| {served.name} | {served.requests:,} | {served.input_tokens.mean():,.0f} "
            f"| {large.kv_capacity_tokens:,} | {hits} | {run.utilization:.0%} | {seconds:.2f} "
            f"| {served.requests / seconds:,.0f} |"
        )


def timed_fleet(fleet: Fleet, trace: Trace, balance: str) -> float:
    began_s = time.perf_counter()
    run = fleet_replay(fleet, trace, balance)
    assert not run.rejected
    return time.perf_counter() - began_s


def timed(latency: LatencyModel, trace: Trace, prefix_caching: bool = False):
    engine = replace(ENGINE, max_model_len=CONTEXT) if trace.prefix_blocks else ENGINE
    began_s = time.perf_counter()
    run = simulate(latency, engine, trace, prefix_caching=prefix_caching)
    return time.perf_counter() - began_s, run


def estimate_rows(rows: int) -> str:
    """Time the whole command on rows of fitted points, interpreter and processes included.

    The fits are stand-ins that live only here: rooflines, saved as if they had been measured.
    """
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "results"
        for tp in (1, 2):
            stand_in(store, tp)
        points = Path(folder) / "points.csv"
        with points.open("w", newline="") as file:
            writer = csv.writer(file)
            columns = "model,gpu,tp,dtype,input_tokens,output_tokens,concurrency"
            writer.writerow(columns.split(","))
            for _ in range(rows):
                lengths = (draw.randrange(128, 8001), draw.randrange(64, 2049))
                load = draw.choice((1, 2, 4, 8, 16, 32, 64, 128, 256))
                writer.writerow((MODEL, GPU, draw.choice((1, 2)), "bf16", *lengths, load))
        began_s = time.perf_counter()
        command = [sys.executable, "-m", "hgpu", "estimate", "--points", str(points), "--from", "fit"]
        environment = {key: value for key, value in os.environ.items() if key != "CI"}
        done = subprocess.run(
            [*command, "--results", str(store), "--json"], capture_output=True, text=True, env=environment
        )
        seconds = time.perf_counter() - began_s
    if done.returncode:
        raise SystemExit(done.stderr)
    return f"{seconds:.1f} s"


def stand_in(store: Path, tp: int) -> None:
    made = estimated(store, load_model(MODEL), OperatingPoint(GPU, tp, engine=ENGINE))
    latency = replace(made.payload.latency, provenance=Provenance.FITTED)
    save(store, Draft("latency", "stand-in", made.payload.model_copy(update={"latency": latency})))


if __name__ == "__main__":
    main()
