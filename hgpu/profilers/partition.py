"""Sweeping the splits of a device with the mini-engine: what the partition model is fitted to.

For each split, each operator class runs alone on its phase's side at several sizes, and decode attention
runs beside a prefill that goes on all the time. A device is whatever can make two sides of itself: a CPU's
cores (`cpu_sides`), or a GPU's SMs in green contexts (`green_sides`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

from hgpu.core.errors import InputError
from hgpu.core.partition import PREFILL, OperatorClass, Split
from hgpu.profilers.mini_shape import MiniShape, Size
from hgpu.profilers.partition_samples import ContentionSample, ShareSample


class Sides(Protocol):
    """The two sides of one split, each with a mini-engine of the same shape."""

    def alone_s(self, kind: OperatorClass, size: Size, repeats: int) -> Sequence[float]:
        """Return the seconds of a class's operators on its phase's side, the other side idle."""

    def beside_s(self, decode: Size, prefill: Size, repeats: int) -> Sequence[float]:
        """Return the seconds of decode attention while prefill runs on the other side without a pause."""


_LARGEST_BLOCK = 256
Device = Callable[[Split], AbstractContextManager[Sides]]


@dataclass(frozen=True, slots=True)
class SweepDesign:
    """The sizes of both phases' steps, and how often each is timed; the median counts."""

    prefill: tuple[Size, ...] = (Size(128), Size(512), Size(2048), Size(2048, 4096), Size(8192))
    decode: tuple[Size, ...] = (Size(1, 8192), Size(8, 2048), Size(64, 512), Size(64, 2048), Size(128, 1024))
    repeats: int = 9

    def __post_init__(self) -> None:
        if not self.prefill or not self.decode or self.repeats < 1:
            raise InputError("a sweep without sizes or repeats measures nothing", "each phase needs a size")

    @property
    def kv_tokens(self) -> int:
        """Tokens of a cache that holds the largest step of each phase beside the other, in any block size."""
        prompt = max(size.tokens + size.context for size in self.prefill)
        return prompt + max(size.tokens * (size.context + 1 + _LARGEST_BLOCK) for size in self.decode)

    def sizes(self, kind: OperatorClass) -> tuple[Size, ...]:
        """Return the sizes of a class's phase."""
        return self.prefill if kind in PREFILL else self.decode


@dataclass(slots=True)
class Swept:
    """The samples of a sweep; `spread` is the median of (largest − least)/median over repeats."""

    alone: list[ShareSample] = field(default_factory=list)
    beside: list[ContentionSample] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)

    @property
    def spread(self) -> float:
        """How far repeats of the same step lay apart."""
        return median(self.spreads)


def sweep(device: Device, shape: MiniShape, splits: Sequence[Split], design: SweepDesign) -> Swept:
    """Return the samples of all splits."""
    if not splits:
        raise InputError("a sweep needs splits", "none were given", "give those of the device's lattice")
    swept = Swept()
    for split in splits:
        with device(split) as sides:
            _sweep_split(swept, sides, split, shape, design)
    return swept


def _sweep_split(swept: Swept, sides: Sides, split: Split, shape: MiniShape, design: SweepDesign) -> None:
    alone: dict[tuple[OperatorClass, Size], float] = {}
    for kind in OperatorClass:
        share = split.prefill_share if kind in PREFILL else split.decode_share
        for size in design.sizes(kind):
            seconds = _timed(swept, sides.alone_s(kind, size, design.repeats))
            alone[kind, size] = seconds
            swept.alone.append(ShareSample(kind, share, shape.work(kind, size), seconds))
    for prefill, decode in _pairs(design):
        attention_s = alone[OperatorClass.PREFILL_ATTENTION, prefill]
        part = attention_s / (attention_s + alone[OperatorClass.PREFILL_DENSE, prefill])
        beside_s = _timed(swept, sides.beside_s(decode, prefill, design.repeats))
        alone_s = alone[OperatorClass.DECODE_ATTENTION, decode]
        swept.beside.append(ContentionSample(shape.load(prefill, decode), part, alone_s, beside_s))


def _pairs(design: SweepDesign) -> Iterator[tuple[Size, Size]]:
    """Yield every decode size beside the shortest and the longest prompt: dense, and with much attention."""
    ends = sorted(set(design.prefill), key=lambda size: (size.tokens, size.context))
    for prefill in sorted({ends[0], ends[-1]}, key=lambda size: (size.tokens, size.context)):
        for decode in design.decode:
            yield prefill, decode


def _timed(swept: Swept, seconds: Sequence[float]) -> float:
    middle = median(seconds)
    swept.spreads.append((max(seconds) - min(seconds)) / middle)
    return middle
