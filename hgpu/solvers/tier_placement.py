"""Placing the tensors of offloaded training in memory tiers: the published rule, and two naive ways.

The rule (arXiv 2507.03305) gives local memory out in level order, latency-critical first. With n cards:

    fits in what is left locally   → local
    something is left locally      → interleave local and cards; local takes min(left, size // (1 + n))
    nothing is left                → stripe over the cards

A tensor that is interleaved or striped lies in equal parts on the cards.
"""

from collections.abc import Sequence

from hgpu.core.errors import Infeasible, InputError
from hgpu.core.gpu import MemoryTier
from hgpu.core.placement import PlacedTensor, TierPlacement, spread
from hgpu.core.training_tensors import TrainingTensor


def latency_first(tensors: Sequence[TrainingTensor], tiers: Sequence[MemoryTier]) -> TierPlacement:
    """Place tensors by the published rule; `tiers` are local memory and then the cards.

    Raises Infeasible where the rule fills a tier over its capacity, naming the tier.
    """
    _require(tiers)
    left = tiers[0].capacity_bytes
    placed = []
    for tensor in sorted(tensors, key=lambda row: row.level):  # stable: the given order within a level
        local = _local_bytes(tensor.size_bytes, left, len(tiers) - 1)
        left -= local
        placed.append(PlacedTensor(tensor, (local, *_on_cards(tensor.size_bytes - local, len(tiers) - 1))))
    return _fitting(TierPlacement(tuple(tiers), tuple(placed)), "the latency-first rule")


def interleaved(tensors: Sequence[TrainingTensor], tiers: Sequence[MemoryTier]) -> TierPlacement:
    """Place every tensor in equal parts over all tiers, as `numactl --interleave=all` does.

    Raises Infeasible where a tier's part is more than its capacity.
    """
    _require(tiers)
    every = range(len(tiers))
    placed = tuple(PlacedTensor(row, spread(row.size_bytes, every, len(tiers))) for row in tensors)
    return _fitting(TierPlacement(tuple(tiers), placed), "interleaving over all tiers")


def all_on(tensors: Sequence[TrainingTensor], tiers: Sequence[MemoryTier], tier: int) -> TierPlacement:
    """Place every tensor in one tier. Raises Infeasible where it is too small."""
    _require(tiers)
    placed = tuple(PlacedTensor(row, spread(row.size_bytes, [tier], len(tiers))) for row in tensors)
    return _fitting(TierPlacement(tuple(tiers), placed), f"placing everything in {tiers[tier].name}")


def _local_bytes(size_bytes: int, left_bytes: int, cards: int) -> int:
    if size_bytes <= left_bytes or not cards:
        return size_bytes
    return min(left_bytes, size_bytes // (1 + cards))


def _on_cards(size_bytes: int, cards: int) -> tuple[int, ...]:
    return spread(size_bytes, range(cards), cards) if cards else ()


def _require(tiers: Sequence[MemoryTier]) -> None:
    if not tiers:
        raise InputError("there is no memory tier to place anything in", fix="give at least local memory")


def _fitting(placement: TierPlacement, how: str) -> TierPlacement:
    for used, tier in zip(placement.used_bytes, placement.tiers, strict=True):
        if used > tier.capacity_bytes:
            raise Infeasible(
                f"{how} doesn't fit",
                f"{tier.name} would hold {used / 2**30:.1f} GiB of its {tier.capacity_bytes / 2**30:.1f} GiB",
                f"add memory to {tier.name} or a card, or train with a smaller batch or context",
            )
    return placement
