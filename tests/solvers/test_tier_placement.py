"""The published rule's masks come out exactly, and no placement of its kind is faster than the exact one."""

from dataclasses import replace
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from hgpu.core.errors import Infeasible
from hgpu.core.gpu import MemoryTier
from hgpu.core.placement import TierPlacement
from hgpu.core.training_tensors import TrainingShape, TrainingTensor, host_bytes, offloaded_tensors
from hgpu.latency.offloaded_step import Devices, compute_s, link_s, moved, step_time
from hgpu.solvers.tier_milp import compared, shortest_step
from hgpu.solvers.tier_placement import all_on, interleaved, latency_first

GIB = 2**30
LLAMA_8B = TrainingShape(8_340_000_000, layers=32, hidden_size=4096, batch=1, context_tokens=4096)
DEVICES = Devices(flops_per_s=400e12, link_bytes_per_s=55e9)
SIZES = st.integers(1, 400)
SPEEDS = st.floats(5e9, 400e9)


def dram(gib: float, bandwidth: float = 200e9) -> MemoryTier:
    return MemoryTier("dram", int(gib * GIB), bandwidth, bandwidth)


def card(number: int = 0, gib: float = 256, bandwidth: float = 50e9) -> MemoryTier:
    return MemoryTier(f"cxl{number}", int(gib * GIB), bandwidth, bandwidth)


def test_the_published_example_has_the_published_masks() -> None:
    placement = latency_first(offloaded_tensors(LLAMA_8B), [dram(100), card()])
    assert placement.masks == "[0][0][0][0,1][1][1][1]"


@pytest.mark.parametrize(
    ("local_gib", "cards", "masks"),
    [
        (200, 1, "[0][0][0][0][0][0][0]"),
        (0, 1, "[1][1][1][1][1][1][1]"),
        (0, 2, "[1,2][1,2][1,2][1,2][1,2][1,2][1,2]"),
        (100, 2, "[0][0][0][0,1,2][1,2][1,2][1,2]"),
        (124.3, 1, "[0][0][0][0][0,1][1][1]"),
    ],
)
def test_local_memory_goes_out_in_level_order(local_gib: float, cards: int, masks: str) -> None:
    tiers = [dram(local_gib), *(card(number) for number in range(cards))]
    assert latency_first(offloaded_tensors(LLAMA_8B), tiers).masks == masks


@given(SIZES, st.lists(SIZES, max_size=3), st.integers(1, 20))
def test_the_rule_places_every_byte_within_capacity_or_says_which_tier_is_full(
    local: int, cards: list[int], params: int
) -> None:
    shape = replace(LLAMA_8B, params=params * 10**9)
    tensors = offloaded_tensors(shape)
    try:
        placement = latency_first(tensors, [dram(local), *(card(n, gib) for n, gib in enumerate(cards))])
    except Infeasible as error:
        assert "would hold" in error.why
        return
    assert placement.fits and sum(placement.used_bytes) == host_bytes(tensors)
    assert [sum(row.bytes_by_tier) for row in placement.placed] == [row.size_bytes for row in tensors]
    for row in placement.placed:
        parts = row.bytes_by_tier[1:]
        assert not parts or max(parts) - min(parts) <= 1


@given(SIZES, st.lists(st.tuples(SIZES, SPEEDS), min_size=1, max_size=2), st.floats(0, 1))
@settings(max_examples=25)
def test_the_rule_and_the_naive_ways_are_never_faster_than_the_shortest(
    local: int, cards: list[tuple[int, float]], blend: float
) -> None:
    tiers = [dram(local), *(card(n, gib, speed) for n, (gib, speed) in enumerate(cards))]
    tensors = offloaded_tensors(LLAMA_8B)
    try:
        found = compared(tensors, tiers, LLAMA_8B, DEVICES, blend)
    except Infeasible:
        with pytest.raises(Infeasible):
            latency_first(tensors, tiers)
        return
    assert found.best.proven
    assert found.gap is None or found.gap >= 0
    used = zip(found.best.placement.used_bytes, tiers, strict=True)
    assert all(size <= tier.capacity_bytes + 64 * 1024 for size, tier in used)  # the solver's tolerance
    for naive in naive_ways(tensors, tiers):
        assert step_time(naive, LLAMA_8B, DEVICES, blend).total_s >= found.best.step_s * (1 - 1e-6)


def naive_ways(tensors: tuple[TrainingTensor, ...], tiers: list[MemoryTier]) -> list[TierPlacement]:
    found = []
    for way in [lambda: interleaved(tensors, tiers)] + [
        lambda number=number: all_on(tensors, tiers, number) for number in range(len(tiers))
    ]:
        try:
            found.append(way())
        except Infeasible:
            continue
    return found


@given(st.integers(20, 90), SPEEDS, SPEEDS, st.floats(0, 1))
@settings(max_examples=8)
def test_the_shortest_equals_a_search_of_every_combination_of_masks(
    local: int, fast: float, slow: float, blend: float
) -> None:
    """Three tensors, local memory and a card: 27 combinations, each a linear program of its own."""
    tensors = tuple(offloaded_tensors(LLAMA_8B)[number] for number in (2, 3, 4))
    tiers = [dram(local, fast), card(0, 50, slow)]
    options = [mask for size in (1, 2) for mask in combinations(range(2), size)]
    costs = [brute(tensors, masks, tiers, blend) for masks in product(options, repeat=len(tensors))]
    if min(costs) == np.inf:
        with pytest.raises(Infeasible):
            shortest_step(tensors, tiers, LLAMA_8B, DEVICES, blend)
        return
    found = shortest_step(tensors, tiers, LLAMA_8B, DEVICES, blend)
    assert found.step_s == pytest.approx(min(costs), rel=1e-6)


def brute(
    tensors: tuple[TrainingTensor, ...],
    masks: tuple[tuple[int, ...], ...],
    tiers: list[MemoryTier],
    blend: float,
) -> float:
    """Minimise over the local part of each tensor with all masks fixed, and over f, b and m."""
    count = len(tensors)
    bounds = [{(0,): (1.0, 1.0), (1,): (0.0, 0.0), (0, 1): (0.0, 0.5)}[mask] for mask in masks]
    floors = [
        max(compute_s(LLAMA_8B, DEVICES, back), link_s(tensors, 1, DEVICES, back)) for back in (False, True)
    ]
    rows, limits = [], []
    summed = np.zeros(count)
    constant = 0.0
    for number, tier in enumerate(tiers):
        sign, offset = (1.0, 0.0) if number == 0 else (-1.0, 1.0)  # the part in the tier is offset + sign·x
        sizes = np.array([row.size_bytes for row in tensors]) / GIB
        rows.append([*(sign * sizes), 0, 0, 0])
        limits.append(tier.capacity_bytes / GIB - offset * sizes.sum())
        busy = np.array([row.optimizer_bytes for row in tensors]) / tier.host_bandwidth_bytes_per_s
        rows.append([*(sign * busy), 0, 0, -1])
        limits.append(-offset * busy.sum())
        summed, constant = summed + sign * busy, constant + offset * busy.sum()
        for place, back in enumerate((False, True)):
            busy = np.array([sum(moved(row, back)) for row in tensors]) / tier.device_bandwidth_bytes_per_s
            rows.append([*(sign * busy), *(-float(place == at) for at in range(2)), 0])
            limits.append(-offset * busy.sum())
    costs = [*(blend * summed), 1, 1, 1 - blend]
    found = linprog(costs, rows, limits, bounds=[*bounds, *((floor, None) for floor in floors), (0, None)])
    return found.fun + blend * constant if found.status == 0 else np.inf


def test_more_memory_never_makes_the_shortest_step_longer() -> None:
    tensors = offloaded_tensors(LLAMA_8B)
    times = [
        shortest_step(tensors, [dram(gib), card()], LLAMA_8B, DEVICES).step_s for gib in range(20, 181, 20)
    ]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(times))


def test_the_rule_itself_is_the_answer_where_nothing_is_shorter() -> None:
    found = compared(offloaded_tensors(LLAMA_8B), [dram(200), card()], LLAMA_8B, DEVICES)
    assert found.gap == 0 and found.best.placement == found.rule


def test_gradients_on_the_card_beat_the_published_order_where_level_one_does_not_fit() -> None:
    """The optimizer reads a gradient once but reads and writes a master weight: 4 bytes against 8."""
    found = compared(offloaded_tensors(LLAMA_8B), [dram(100), card()], LLAMA_8B, DEVICES)
    assert found.best.placement.placed[2].mask == (1,) and found.best.placement.placed[3].mask == (0,)
    assert found.gap is not None and found.gap > 0.1


def test_what_fits_nowhere_is_infeasible_with_both_sizes() -> None:
    with pytest.raises(Infeasible, match="doesn't fit in the memory tiers"):
        shortest_step(offloaded_tensors(LLAMA_8B), [dram(50), card(0, 50)], LLAMA_8B, DEVICES)
