"""A tier four times slower than DRAM, simulated: naive ways, the published rule and the exact placement.

    python benchmarks/tiers/simulated.py

Every bandwidth here is assumed; nothing was measured on CXL hardware or a GPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hgpu.core.gpu import MemoryTier
from hgpu.core.placement import TierPlacement
from hgpu.core.training_tensors import TrainingShape, offloaded_tensors
from hgpu.latency.offloaded_step import Devices, optimizer_s, step_time
from hgpu.solvers.tier_milp import compared
from hgpu.solvers.tier_placement import all_on, interleaved, latency_first

GIB = 2**30
DRAM_BYTES_PER_S = 200e9
SLOWER = 4
DEVICES = Devices(flops_per_s=400e12, link_bytes_per_s=55e9)
AMPLE_BYTES = 2**44
BLENDS = (0.0, 0.5, 1.0)

QWEN_7B = TrainingShape(7_615_616_512, 28, 3584, 1, 4096, attention_flops_per_pair=4 * 28 * 28 * 128)
NEMO_12B = TrainingShape(12_247_782_400, 40, 5120, 1, 4096, attention_flops_per_pair=4 * 40 * 32 * 128)
PUBLISHED_EXAMPLE = TrainingShape(
    8_340_000_000, 32, 4096, 1, 4096, attention_flops_per_pair=4 * 32 * 32 * 128
)
SETTINGS = {
    "Qwen2.5-7B, 16 × 4K": (QWEN_7B, 16, 4096),
    "Qwen2.5-7B, 1 × 32K": (QWEN_7B, 1, 32_768),
    "Mistral-Nemo-12B, 1 × 32K": (NEMO_12B, 1, 32_768),
    "8.34 billion, 1 × 4K": (PUBLISHED_EXAMPLE, 1, 4096),
}
LOCAL = {"Level 1 fits in DRAM, with 1 GiB to spare": 1.0, "80 % of level 1 fit in DRAM": 0.8}


@dataclass(frozen=True, slots=True)
class Row:
    """A way of placing: masks at β = 1, and for each β the optimizer step's and the whole step's seconds."""

    way: str
    masks: str
    optimizer_s: tuple[float, ...]
    step_s: tuple[float, ...]


def main() -> None:
    print("Columns of three are for β = 0, 0.5, 1.")
    for title, part in LOCAL.items():
        print(f"\n### {title}\n")
        print("| | way | masks | optimizer step ÷ DRAM's | throughput, % of DRAM's | % over exact |")
        print("|---|---|---|---|---|---|")
        for name in SETTINGS:
            found = {row.way: row for row in rows(name, part)}
            for row in found.values():
                print(f"| {name} | {row.way} | `{row.masks}` | {' | '.join(_figures(row, found))} |")


def _figures(row: Row, found: dict[str, Row]) -> tuple[str, str, str]:
    only, exact = found["DRAM only"], found.get(row.way.replace("rule", "exact"))
    slower = [mine / best for mine, best in zip(row.optimizer_s, only.optimizer_s, strict=True)]
    kept = [best / mine for mine, best in zip(row.step_s, only.step_s, strict=True)]
    gaps = [mine / best - 1 for mine, best in zip(row.step_s, exact.step_s, strict=True)] if exact else []
    return (
        ", ".join(f"{ratio:.2f}" for ratio in slower),
        ", ".join(f"{100 * share:.1f}" for share in kept),
        ", ".join(f"{100 * abs(gap):.1f}" for gap in gaps) if "rule" in row.way else "",
    )


def rows(name: str, local_part: float) -> Iterator[Row]:
    """Yield a row a way; DRAM holds a part of level 1, all of it and 1 GiB where that is 1."""
    base, batch, context_tokens = SETTINGS[name]
    shape = replace(base, batch=batch, context_tokens=context_tokens)
    tensors = offloaded_tensors(shape)
    level_one = sum(row.size_bytes for row in tensors if row.level == 1)
    local = dram(round(local_part * level_one) + (GIB if local_part == 1 else 0))
    ample, cards = dram(AMPLE_BYTES), [card(0), card(1)]
    ways: dict[str, Callable[[float], TierPlacement]] = {
        "DRAM only": lambda _: all_on(tensors, [ample], 0),
        "all on one card": lambda _: all_on(tensors, [ample, cards[0]], 1),
        "interleaved with one card": lambda _: interleaved(tensors, [ample, cards[0]]),
        "rule, one card": lambda _: latency_first(tensors, [local, cards[0]]),
        "exact, one card": lambda blend: exact(shape, [local, cards[0]], blend),
        "rule, two cards": lambda _: latency_first(tensors, [local, *cards]),
        "exact, two cards": lambda blend: exact(shape, [local, *cards], blend),
    }
    for way, place in ways.items():
        placed = [(place(blend), blend) for blend in BLENDS]
        yield Row(
            way,
            placed[-1][0].masks,
            tuple(optimizer_s(*one) for one in placed),
            tuple(step_time(one, shape, DEVICES, blend).total_s for one, blend in placed),
        )


def exact(shape: TrainingShape, tiers: list[MemoryTier], blend: float) -> TierPlacement:
    return compared(offloaded_tensors(shape), tiers, shape, DEVICES, blend).best.placement


def dram(capacity_bytes: int) -> MemoryTier:
    return MemoryTier("dram", capacity_bytes, DRAM_BYTES_PER_S, DRAM_BYTES_PER_S)


def card(number: int) -> MemoryTier:
    slow = DRAM_BYTES_PER_S / SLOWER
    return MemoryTier(f"cxl{number}", AMPLE_BYTES, slow, slow)


if __name__ == "__main__":
    main()
