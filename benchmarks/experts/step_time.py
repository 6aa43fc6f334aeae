"""Predicted against simulated step times of expert caches, where copying takes time.

    python benchmarks/experts/step_time.py [--traces FOLDER] [--csv FILE]

The shapes are those of Qwen3-30B-A3B and Mixtral 8x7B with made-up routing (`synthetic.py`). With traces that
`traces.py` records, the example's own routing is played too, with experts of Qwen3's size.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from synthetic import synthetic_trace

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.experts import ExpertCache, ExpertPolicy, Prefetch
from hgpu.core.gpu import GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import EngineOptions, Mode, OperatingPoint
from hgpu.core.step import StepBatch
from hgpu.latency.expert_loads import WARM_STEPS, Routing, routing_of
from hgpu.latency.offload import CONTEXT_TOKENS, copies_of
from hgpu.latency.rebatch import rebatched
from hgpu.latency.routing_artifact import trace_from
from hgpu.profilers.efficiency import efficiency_of
from hgpu.profilers.estimate import Roofline
from hgpu.profilers.host_link import HostLink
from hgpu.profilers.routing_record import from_npz
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
EXAMPLE = "example routing, Qwen3 experts"


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


def rows(folder: Path | None) -> Iterator[Row]:
    """Play every case, and the recorded traces of a folder."""
    known: dict[str, tuple[Routing, Routing]] = {}
    for name, gpu_name, fractions in CASES:
        model = load_model(name)
        if name not in known:
            known[name] = _made(model)
        yield from _each(model, gpu_name, fractions, *known[name])
    for gpu_name in ("L4", "RTX-PRO-6000") if folder else ():
        assert folder is not None
        yield from _each(_example(), gpu_name, (0.125, 0.25, 0.5), *_recorded(folder))


def _each(
    model: ModelSpec, gpu: str, fractions: Sequence[float], known: Routing, held_out: Routing
) -> Iterator[Row]:
    for fraction in fractions:
        for batch in BATCHES:
            yield from _compared(list(_case(model, resolve_gpu(gpu), fraction, batch, known, held_out)))
            print(f"{model.name} {gpu} {fraction:.1%} batch {batch}", file=sys.stderr)


def _made(model: ModelSpec) -> tuple[Routing, Routing]:
    shape = (model.experts, model.experts_per_token, model.moe_layers)
    learnt, played = (routing_of(synthetic_trace(*shape, TOKENS, seed), "synthetic") for seed in (0, 1))
    return learnt, played


def _recorded(folder: Path) -> tuple[Routing, Routing]:
    example = _example()
    learnt, played = (
        routing_of(trace_from(from_npz((folder / name).read_bytes()), example.experts), name)
        for name in ("profile.npz", "test-1.npz")
    )
    return learnt, played


def _example() -> ModelSpec:
    """The example's layers and experts, each as large as Qwen3-30B-A3B's."""
    large = load_model(CASES[0][0])
    return replace(
        large,
        name=EXAMPLE,
        layers=4,
        moe_layers=4,
        experts=32,
        experts_per_token=4,
        dense_params=large.dense_params * 4 // large.layers,
    )


def _case(
    model: ModelSpec, gpu: GpuType, fraction: float, batch: int, known: Routing, held_out: Routing
) -> Iterator[Row]:
    """Predict from one trace and simulate another, each way."""
    link = HostLink()
    for policy, prefetch in WAYS:
        cache = ExpertCache(fraction, policy, prefetch)
        engine = EngineOptions(max_num_batched_tokens=max(BATCHES), max_num_seqs=max(BATCHES))
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
        trace = rebatched(held_out.decodes, batch, STEPS + WARM_STEPS, decodes=True)
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
        if row.cache == 0.25 and row.batch == 1 and row.way.startswith(str(ExpertPolicy.PINNED_LFU)):
            lines.append(
                f"{row.model} on {row.gpu}, {row.way}: {row.against_on_demand:.2f}x on demand, "
                f"{row.against_lru:.2f}x LRU, {row.against_whole_layers:.1f}x whole layers ahead."
            )
    return "\n".join(lines)


def main() -> None:
    """Run, write all rows, and print the summary and those at a quarter of the experts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, help="folder that traces.py has written")
    parser.add_argument("--csv", type=Path, help="file for all rows")
    options = parser.parse_args()
    found = list(rows(options.traces))
    if options.csv:
        with options.csv.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _short(value) for name, value in asdict(row).items()} for row in found)
    print(f"{summary(found)}\n\n{table([row for row in found if row.cache == 0.25])}")


def _short(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
