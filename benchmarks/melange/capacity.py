"""Why our single-type fleets for Arena differ from the paper's: what one engine of each type carries.

    python benchmarks/melange/capacity.py [--tpot-ms 120] [--percentile 99.5]

Prints the capacity of each bucket (requests/s of that bucket alone, from hgpu.latency.capacity),
and of the whole mixture under several readings of the paper, beside 32 req/s over the paper's count
of GPUs at 32 req/s.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from setting import ARENA_COUNTS, GPUS, INPUT_EDGES, OUTPUT_EDGES, RATES_RPS, model_folder

from hgpu.catalog.models import load_model
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.slo import Objective, Slo
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Bucket
from hgpu.latency.capacity import Capacity, capacities
from hgpu.latency.select import estimated
from hgpu.workloads.histogram import bucketize
from hgpu.workloads.lengths import find_lengths

ENGINE = EngineOptions(max_model_len=2 * (INPUT_EDGES["arena"][-1] + OUTPUT_EDGES[-1]))
SHOWN_SHARE = 0.01  # buckets with fewer requests are left out of the table
Latencies = dict[str, LatencyModel]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tpot-ms", type=int, choices=sorted(ARENA_COUNTS), default=120)
    parser.add_argument("--percentile", type=float, default=99.5)
    options = parser.parse_args()
    slo = Slo(tpot=Objective(options.tpot_ms / 1e3, options.percentile))
    median = Slo(tpot=Objective(options.tpot_ms / 1e3, 50.0))
    models, buckets = latencies(), arena(1)
    show_buckets(models, buckets, slo)
    print(f"\n| requests/s of one engine, Arena at {options.tpot_ms} ms | {' | '.join(GPUS)} |")
    print("|---|---:|---:|---:|---:|")
    counts = ARENA_COUNTS[options.tpot_ms]
    show("paper: 32 over its count", [RATES_RPS[-1] / counts[gpu][-1] for gpu in GPUS])
    show(f"hgpu, percentile {options.percentile:g}", mixture(models, buckets, slo))
    show("hgpu, percentile 50", mixture(models, buckets, median))
    show("… each request as long as its bucket's edges", mixture(models, at_edges(buckets), median))
    show("… lengths doubled", mixture(models, arena(2), median))
    for most in (8, 16, 32):
        engine = replace(ENGINE, max_num_seqs=most)
        show(f"… at most {most} in flight", mixture(models, buckets, median, engine))


def latencies() -> Latencies:
    """Return the roofline's estimate of Llama 2 7B on each GPU type."""
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(str(model_folder(Path(folder))))
        points = {gpu: OperatingPoint(gpu, dtype=model.weight_dtype, engine=ENGINE) for gpu in GPUS}
        return {gpu: estimated(Path(folder), model, point).payload.latency for gpu, point in points.items()}


def arena(times: int) -> tuple[Bucket, ...]:
    """Return Arena's buckets, with all lengths multiplied, and the last edges with them."""
    inputs, outputs = find_lengths("arena").sample(20_000, seed=0)
    edges = ([*side[:-1], side[-1] * times] for side in (INPUT_EDGES["arena"], OUTPUT_EDGES))
    return bucketize(inputs * times, outputs * times, *edges)


def at_edges(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    return tuple(
        replace(
            bucket,
            input_tokens=float(bucket.input_high),
            output_tokens=float(bucket.output_high),
            max_total_tokens=bucket.input_high + bucket.output_high,
        )
        for bucket in buckets
    )


def mixture(
    models: Latencies, buckets: tuple[Bucket, ...], slo: Slo, engine: EngineOptions = ENGINE
) -> list[float]:
    """Return requests/s of the whole mixture for one engine: 1 / Σ share/capacity, 0 if any bucket can't."""
    rows = (capacities(models[gpu], engine, buckets, slo) for gpu in GPUS)
    return [_harmonic(buckets, row) for row in rows]


def _harmonic(buckets: Sequence[Bucket], row: Sequence[Capacity]) -> float:
    if any(capacity.rate_rps == 0 for capacity in row):
        return 0.0
    return 1 / sum(b.share / capacity.rate_rps for b, capacity in zip(buckets, row, strict=True))


def show(name: str, rates_rps: Sequence[float]) -> None:
    print(f"| {name} | {' | '.join(f'{rate:.2f}' if rate else 'can’t' for rate in rates_rps)} |")


def show_buckets(models: Latencies, buckets: tuple[Bucket, ...], slo: Slo) -> None:
    mean = [sum(b.share * getattr(b, side) for b in buckets) for side in ("input_tokens", "output_tokens")]
    print(f"Arena as hgpu has it: {mean[0]:.0f} tokens in and {mean[1]:.0f} out on average.\n")
    print(f"| bucket | share | mean in | mean out | {' | '.join(GPUS)} |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    rows = [capacities(models[gpu], ENGINE, buckets, slo) for gpu in GPUS]
    for number, bucket in enumerate(buckets):
        if bucket.share >= SHOWN_SHARE:
            lengths = f"{bucket.share:.1%} | {bucket.input_tokens:.0f} | {bucket.output_tokens:.0f}"
            rates = " | ".join(f"{row[number].rate_rps:.2f}" for row in rows)
            print(f"| {bucket.name} | {lengths} | {rates} |")


if __name__ == "__main__":
    main()
