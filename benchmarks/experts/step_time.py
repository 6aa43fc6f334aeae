"""Predicted against simulated step times of expert caches, where copying takes time.

python -m benchmarks.experts.step_time --out benchmarks/experts/step_time.md
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from benchmarks.experts.synthetic import synthetic_trace
from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.experts import ExpertCache, ExpertPolicy, Prefetch
from hgpu.core.gpu import GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import EngineOptions, Mode, OperatingPoint
from hgpu.core.step import StepBatch
from hgpu.latency.expert_loads import WARM_STEPS, Routing, routing_of
from hgpu.latency.offload import CONTEXT_TOKENS, copies_of
from hgpu.latency.rebatch import by_sequence, rebatched
from hgpu.profilers.efficiency import efficiency_of
from hgpu.profilers.estimate import Roofline
from hgpu.profilers.host_link import HostLink
from hgpu.simulator.offloading import Speeds, Steps, offloaded_steps

CASES = (
    ("Qwen/Qwen3-30B-A3B", "L4", (0.125, 0.25, 0.5)),
    ("Qwen/Qwen3-30B-A3B", "RTX-PRO-6000", (0.125, 0.25, 0.5)),
    ("mistralai/Mixtral-8x7B-v0.1", "L40S", (0.25, 0.5)),
    ("mistralai/Mixtral-8x7B-v0.1", "RTX-PRO-6000", (0.25, 0.5)),
)
BATCHES = (1, 4, 16)
WAYS = (
    (ExpertPolicy.ON_DEMAND, Prefetch.NONE),
    (ExpertPolicy.LRU, Prefetch.NONE),
    (ExpertPolicy.LFU, Prefetch.NONE),
    (ExpertPolicy.PINNED_LFU, Prefetch.NONE),
    (ExpertPolicy.PINNED_LFU, Prefetch.TOKEN),
    (ExpertPolicy.PINNED_LFU, Prefetch.NEXT_GATE),
)
TOKENS = 6144  # of which half are learnt from; simulated are as many of another sequence
STEPS = 192
WHOLE_LAYERS = "whole layers ahead"


@dataclass(frozen=True)
class Row:
    """One way to keep experts: GB copied and milliseconds a step; speed-ups are of simulated steps."""

    model: str
    gpu: str
    link_gb_s: float
    cache: float
    batch: int
    way: str
    gb_a_step: float
    compute_ms: float
    predicted_ms: float
    simulated_ms: float
    off: float
    against_on_demand: float = 1.0
    against_lru: float = 1.0
    against_whole_layers: float = 1.0


def rows() -> Iterator[Row]:
    """Play every case."""
    traces: dict[str, tuple[Routing, Routing]] = {}
    for name, gpu_name, fractions in CASES:
        model, gpu = load_model(name), resolve_gpu(gpu_name)
        if name not in traces:
            traces[name] = _routings(model)
        for fraction in fractions:
            for batch in BATCHES:
                yield from _compared(list(_case(model, gpu, fraction, batch, *traces[name])))
                print(f"{name} {gpu_name} {fraction:.1%} batch {batch}", file=sys.stderr)


def _routings(model: ModelSpec) -> tuple[Routing, Routing]:
    shape = (model.experts, model.experts_per_token, model.moe_layers)
    learnt, played = (routing_of(synthetic_trace(*shape, TOKENS, seed), "synthetic") for seed in (0, 1))
    return learnt, played


def _case(
    model: ModelSpec, gpu: GpuType, fraction: float, batch: int, known: Routing, held_out: Routing
) -> Iterator[Row]:
    """Predict from one trace and simulate another, each way."""
    link = HostLink()
    for policy, prefetch in WAYS:
        cache = ExpertCache(fraction, policy, prefetch)
        engine = EngineOptions(max_num_batched_tokens=batch, max_num_seqs=batch)
        point = OperatingPoint(gpu.name, mode=Mode.OFFLOAD, engine=engine, experts=cache)
        efficiency = efficiency_of(gpu, model.weight_dtype)
        roofline = Roofline(model, gpu, 1, efficiency, cache)
        compute_s = roofline.step_s(
            StepBatch(decode_seqs=batch, decode_context_tokens=batch * CONTEXT_TOKENS)
        )
        predicted_s = copies_of(model, gpu, point, known, link).step_s(float(batch), compute_s)
        layers_s = compute_s - efficiency.step_overhead_s
        bandwidth = efficiency.bandwidth * gpu.memory_bandwidth_bytes_per_s
        speeds = Speeds(
            efficiency.step_overhead_s,
            layers_s / model.moe_layers,
            link.copy_s(model, gpu),
            2 * model.expert_bytes / bandwidth,
        )
        slots = cache.slots_of(model.experts, model.experts_per_token, model.moe_layers)
        trace = rebatched(by_sequence(held_out.trace), batch, STEPS + WARM_STEPS, decodes=True)
        steps = _simulated(offloaded_steps(trace, cache, slots, known.hints, speeds))
        simulated_s = float(steps.step_s.mean())
        way = str(policy) if prefetch is Prefetch.NONE else f"{policy} + {prefetch}"
        moved = float(steps.copies.mean()) * model.expert_bytes
        yield _row(model, gpu, link, fraction, batch, way, moved, compute_s, predicted_s, simulated_s)
    every = model.moe_layers * model.experts
    whole_s = max(compute_s, every * link.copy_s(model, gpu))
    yield _row(
        model,
        gpu,
        link,
        fraction,
        batch,
        WHOLE_LAYERS,
        every * model.expert_bytes,
        compute_s,
        whole_s,
        whole_s,
    )


def _simulated(steps: Steps) -> Steps:
    return steps.after(min(WARM_STEPS, len(steps.step_s) // 4))


def _row(
    model: ModelSpec,
    gpu: GpuType,
    link: HostLink,
    fraction: float,
    batch: int,
    way: str,
    moved_bytes: float,
    compute_s: float,
    predicted_s: float,
    simulated_s: float,
) -> Row:
    rate_gb_s = link.host_link * gpu.host_link_bytes_per_s / 1e9
    ms = (1e3 * seconds for seconds in (compute_s, predicted_s, simulated_s))
    name = Path(model.name).name
    off = predicted_s / simulated_s - 1
    return Row(name, gpu.name, rate_gb_s, fraction, batch, way, moved_bytes / 1e9, *ms, off)


def _compared(found: list[Row]) -> list[Row]:
    """Return the rows of a case with how much faster each is than the three simple ways."""
    by_way = {row.way: row.simulated_ms for row in found}
    simple = (str(ExpertPolicy.ON_DEMAND), str(ExpertPolicy.LRU), WHOLE_LAYERS)
    return [
        replace(
            row,
            against_on_demand=by_way[simple[0]] / row.simulated_ms,
            against_lru=by_way[simple[1]] / row.simulated_ms,
            against_whole_layers=by_way[simple[2]] / row.simulated_ms,
        )
        for row in found
    ]


def table(found: list[Row]) -> str:
    """Return the rows in Markdown."""
    heads = "| model, GPU, link | cache | batch | way | GB a step | compute ms | predicted ms | simulated ms "
    lines = [heads + "| off | × on demand | × LRU | × whole layers |", "|---" * 12 + "|"]
    for row in found:
        times = f"{row.compute_ms:.1f} | {row.predicted_ms:.1f} | {row.simulated_ms:.1f} | {row.off:+.1%}"
        lines.append(
            f"| {row.model}, {row.gpu}, {row.link_gb_s:.0f} GB/s | {row.cache:.1%} | {row.batch} | {row.way} "
            f"| {row.gb_a_step:.2f} | {times} | {row.against_on_demand:.2f} | {row.against_lru:.2f} "
            f"| {row.against_whole_layers:.2f} |"
        )
    return "\n".join(lines) + "\n"


def summary(found: list[Row]) -> str:
    """Return the errors, and the headline at a quarter of the experts and one sequence."""
    simulated = [row for row in found if row.way != WHOLE_LAYERS]
    off = np.abs([row.off for row in simulated])
    lines = [f"{len(off)} rows: error {off.mean():.1%} in the mean, {off.max():.1%} at most."]
    for row in simulated:
        if row.cache == 0.25 and row.batch == 1 and row.way == str(ExpertPolicy.PINNED_LFU):
            lines.append(
                f"{row.model} on {row.gpu}, {row.way}: {row.against_on_demand:.2f}x on demand, "
                f"{row.against_lru:.2f}x LRU, {row.against_whole_layers:.1f}x whole layers ahead."
            )
    return "\n".join(lines)


def main() -> None:
    """Run, write the table and a CSV beside it, and print the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="Markdown file; a CSV is written beside it")
    out: Path = parser.parse_args().out
    found = list(rows())
    out.write_text(f"{summary(found)}\n\n{table(found)}", encoding="utf-8")
    with out.with_suffix(".csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in found)
    print(summary(found))


if __name__ == "__main__":
    main()
