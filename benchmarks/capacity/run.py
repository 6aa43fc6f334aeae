"""How far the closed form of an engine's capacity is from the simulated one, and what the latter costs.

    python benchmarks/capacity/run.py [--seed 1] [--means] [--all]

Llama-3.1-8B on rooflines of three GPU types with vLLM's default options, a grid of length buckets,
and four pairs of objectives at p99.
"""

import argparse
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.slo import Objective, Slo
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Bucket
from hgpu.latency.capacity import Capacity, capacities
from hgpu.latency.select import estimated
from hgpu.simulator.capacity import RefineOptions, refined
from hgpu.simulator.defaults import default_engine

MODEL = "meta-llama/Llama-3.1-8B"
GPUS = ("L4", "A100-80GB", "H100-SXM")
TPOT_S, TTFT_S = (0.040, 0.120), (0.5, 2.0)
INPUT_EDGES = (0, 25, 250, 1000, 4000)
OUTPUT_EDGES = (0, 25, 250, 1000)


@dataclass(frozen=True, slots=True)
class Row:
    gpu: str
    tpot_s: float
    ttft_s: float
    bucket: Bucket
    closed: Capacity
    simulated: Capacity
    seconds: float

    @property
    def ratio(self) -> float:
        return self.closed.rate_rps / self.simulated.rate_rps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the simulated arrivals and lengths")
    parser.add_argument("--means", action="store_true", help="every request as long as its bucket's mean")
    parser.add_argument("--all", action="store_true", help="print every pair too")
    given = parser.parse_args()
    options = RefineOptions(seed=given.seed)
    print(f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores")
    cells = tuple(at_mean(bucket) for bucket in buckets()) if given.means else buckets()
    rows = [row for gpu in GPUS for row in rows_of(gpu, cells, options)]
    if given.all:
        table_of_pairs(rows)
    table(rows)


def rows_of(gpu: str, cells: tuple[Bucket, ...], options: RefineOptions) -> list[Row]:
    """Ask both about every pair of objectives and cell."""
    engine = default_engine(load_model(MODEL), resolve_gpu(gpu), 1, 8192, 1)
    latency = roofline(gpu, engine)
    rows = []
    for tpot_s, ttft_s in product(TPOT_S, TTFT_S):
        slo = Slo(ttft=Objective(ttft_s, 99.0), tpot=Objective(tpot_s, 99.0))
        for bucket, closed in zip(cells, capacities(latency, engine, cells, slo), strict=True):
            began_s = time.perf_counter()
            simulated = refined(latency, engine, bucket, slo, closed, options)
            seconds = time.perf_counter() - began_s
            rows.append(Row(gpu, tpot_s, ttft_s, bucket, closed, simulated, seconds))
    return rows


def roofline(gpu: str, engine: EngineOptions) -> LatencyModel:
    with tempfile.TemporaryDirectory() as folder:
        return estimated(Path(folder), load_model(MODEL), OperatingPoint(gpu, engine=engine)).payload.latency


def buckets() -> tuple[Bucket, ...]:
    """Cells whose means lie in the middle."""
    return tuple(
        Bucket(i, j, k, n, (i + j + 1) / 2, (k + n + 1) / 2, 1.0, j + n)
        for (i, j), (k, n) in product(pairwise(INPUT_EDGES), pairwise(OUTPUT_EDGES))
    )


def at_mean(bucket: Bucket) -> Bucket:
    """Return a cell of one length, so that what is left between the two isn't the spread of lengths."""
    tokens, outputs = round(bucket.input_tokens), round(bucket.output_tokens)
    return Bucket(tokens - 1, tokens, outputs - 1, outputs, tokens, outputs, 1.0, tokens + outputs)


def table(rows: list[Row]) -> None:
    """Print closed form over simulation by GPU type and objectives."""
    print("\n| GPU | TPOT | TTFT | pairs | served | p10 | median | p90 | beyond ±30 % | seconds a pair |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for gpu, tpot_s, ttft_s in product(GPUS, TPOT_S, TTFT_S):
        chosen = [row for row in rows if (row.gpu, row.tpot_s, row.ttft_s) == (gpu, tpot_s, ttft_s)]
        line(f"{gpu} | {tpot_s * 1e3:g} ms | {ttft_s:g} s", chosen)
    line("all | | ", rows)


def line(name: str, rows: list[Row]) -> None:
    both = [row.ratio for row in rows if row.closed.rate_rps and row.simulated.rate_rps]
    seconds = [row.seconds for row in rows if row.closed.rate_rps]
    spread = (
        " | ".join(f"{value:.2f}" for value in np.percentile(both, (10, 50, 90))) if both else "– | – | –"
    )
    mean = f"{np.mean(seconds):.2f}" if seconds else "–"
    beyond = sum(not 0.7 <= ratio <= 1.3 for ratio in both)
    print(f"| {name} | {len(rows)} | {len(both)} | {spread} | {beyond} | {mean} |")


def table_of_pairs(rows: list[Row]) -> None:
    print("\n| GPU | TPOT ms | TTFT s | bucket | closed req/s | simulated | ratio | seconds | reason |")
    print("|---|---:|---:|---|---:|---:|---:|---:|---|")
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.simulated.rate_rps else "–"
        print(
            f"| {row.gpu} | {row.tpot_s * 1e3:g} | {row.ttft_s:g} | {row.bucket.name} "
            f"| {row.closed.rate_rps:.3g} | {row.simulated.rate_rps:.3g} | {ratio} | {row.seconds:.2f} "
            f"| {row.simulated.reason} |"
        )


if __name__ == "__main__":
    main()
