"""Which bytes of which training tensor lie in which memory tier."""

from collections.abc import Sequence
from dataclasses import dataclass

from hgpu.core.gpu import MemoryTier
from hgpu.core.training_tensors import TrainingTensor


@dataclass(frozen=True, slots=True)
class PlacedTensor:
    """A tensor and its bytes in each tier, in the order of the tiers."""

    tensor: TrainingTensor
    bytes_by_tier: tuple[int, ...]

    @property
    def mask(self) -> tuple[int, ...]:
        """Numbers of the tiers that hold some of it, as the kernel's node mask."""
        return tuple(number for number, size in enumerate(self.bytes_by_tier) if size)

    def share(self, tier: int) -> float:
        """Return which part of the tensor lies in a tier."""
        return self.bytes_by_tier[tier] / self.tensor.size_bytes


@dataclass(frozen=True, slots=True)
class TierPlacement:
    """Where every tensor of a step lies. The first tier is local DRAM, the others are cards."""

    tiers: tuple[MemoryTier, ...]
    placed: tuple[PlacedTensor, ...]

    @property
    def used_bytes(self) -> tuple[int, ...]:
        """Bytes that each tier holds."""
        rows = [row.bytes_by_tier for row in self.placed]
        return tuple(sum(column) for column in zip(*rows, strict=True))

    @property
    def fits(self) -> bool:
        """True where no tier holds more than its capacity."""
        return all(
            used <= tier.capacity_bytes for used, tier in zip(self.used_bytes, self.tiers, strict=True)
        )

    @property
    def masks(self) -> str:
        """The masks in order, as `[0][0][0][0,1][1][1][1]`."""
        return "".join(f"[{','.join(map(str, row.mask))}]" for row in self.placed)


def spread(size_bytes: int, over: Sequence[int], tiers: int) -> tuple[int, ...]:
    """Return bytes by tier of a tensor in equal parts over some tiers; the first take what is left."""
    part, rest = divmod(size_bytes, len(over))
    given = [0] * tiers
    for place, tier in enumerate(over):
        given[tier] = part + (place < rest)
    return tuple(given)
