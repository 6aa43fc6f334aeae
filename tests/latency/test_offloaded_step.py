"""A step's time follows from bytes and bandwidths; a four times slower tier gives the published shape."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.core.gpu import MemoryTier
from hgpu.core.placement import PlacedTensor, TierPlacement, spread
from hgpu.core.training_tensors import TrainingShape, offloaded_tensors
from hgpu.latency.offloaded_step import Devices, compute_s, fit_blend, optimizer_s, pass_terms, step_time

GIB = 2**30
DRAM = MemoryTier("dram", 400 * GIB, 200e9, 200e9)
CARD = MemoryTier("cxl0", 400 * GIB, 50e9, 50e9)
QWEN_7B = TrainingShape(7_615_616_512, layers=28, hidden_size=3584, batch=16, context_tokens=4096)
SHORT = replace(QWEN_7B, batch=1, context_tokens=16)
DEVICES = Devices(flops_per_s=400e12, link_bytes_per_s=55e9)


def placed(
    over: list[list[int]], tiers: tuple[MemoryTier, ...] = (DRAM, CARD), shape: TrainingShape = QWEN_7B
) -> TierPlacement:
    rows = zip(offloaded_tensors(shape), over, strict=True)
    return TierPlacement(
        tiers, tuple(PlacedTensor(row, spread(row.size_bytes, mask, len(tiers))) for row, mask in rows)
    )


def test_the_optimizer_on_dram_moves_thirty_bytes_a_parameter() -> None:
    assert optimizer_s(placed([[0]] * 7)) == pytest.approx(30 * QWEN_7B.params / 200e9)


def test_a_four_times_slower_card_makes_the_optimizer_four_times_slower() -> None:
    local = optimizer_s(placed([[0]] * 7))
    assert optimizer_s(placed([[1]] * 7)) == pytest.approx(4 * local)


@given(st.floats(0, 1))
def test_interleaving_with_it_costs_two_to_two_and_a_half(blend: float) -> None:
    ratio = optimizer_s(placed([[0, 1]] * 7), blend) / optimizer_s(placed([[0]] * 7), blend)
    assert ratio == pytest.approx(2 + 0.5 * blend)


@pytest.mark.parametrize(("context", "batch"), [(4096, 16), (8192, 8), (32_768, 1)])
def test_with_level_one_in_dram_the_step_is_within_three_percent(context: int, batch: int) -> None:
    shape = replace(QWEN_7B, context_tokens=context, batch=batch, attention_flops_per_pair=4 * 3584 * 28)
    masks = [[[0]] * 7, [[0]] * 4 + [[1]] * 3]
    local_s, tiered_s = (step_time(placed(over, shape=shape), shape, DEVICES).total_s for over in masks)
    assert local_s / tiered_s >= 0.97


@given(st.floats(0, 1), st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=1, max_size=5))
def test_a_blend_is_found_again_from_steps_that_follow_it(
    blend: float, tiers: list[tuple[float, float]]
) -> None:
    steps = [(pair, max(pair) + blend * min(pair)) for pair in tiers]
    assert fit_blend(steps) == pytest.approx(blend, abs=1e-9)


def test_a_blend_needs_two_tiers_and_stays_within_its_bounds() -> None:
    assert fit_blend([((1.0, 1.0), 3.0)]) == 1.0 and fit_blend([((1.0, 1.0), 0.5)]) == 0.0
    with pytest.raises(InputError, match="can't be fitted"):
        fit_blend([((1.0, 0.0), 1.0)])


def test_cards_add_up_until_the_link_is_full() -> None:
    slow = replace(CARD, device_bandwidth_bytes_per_s=20e9)
    for cards in (1, 2, 3, 4):
        tiers = (DRAM, *(replace(slow, name=f"cxl{number}") for number in range(cards)))
        striped = placed([list(range(1, cards + 1))] * 7, tiers, SHORT)
        terms = pass_terms(striped, SHORT, DEVICES, backward=False)
        moved_bytes = 2 * QWEN_7B.params
        slowest = max(terms["link"], *(terms[tier.name] for tier in tiers))
        assert moved_bytes / slowest == pytest.approx(min(55e9, cards * 20e9), rel=1e-3)


def test_attention_counts_half_of_all_pairs() -> None:
    bare = compute_s(QWEN_7B, DEVICES, backward=False)
    shape = replace(QWEN_7B, attention_flops_per_pair=10**6)
    extra = compute_s(shape, DEVICES, backward=False) - bare
    assert extra * DEVICES.flops_per_s == pytest.approx(16 * 4096 * 4097 / 2 * 1e6)
    assert compute_s(shape, DEVICES, backward=True) == pytest.approx(3 * (bare + extra))


def test_a_long_context_is_bound_by_compute_and_a_short_one_by_the_card() -> None:
    assert step_time(placed([[1]] * 7), QWEN_7B, DEVICES).backward_bound == "compute"
    short = step_time(placed([[1]] * 7, shape=SHORT), SHORT, DEVICES)
    assert (short.forward_bound, short.backward_bound) == ("cxl0", "cxl0")


def test_two_devices_share_the_tiers_and_have_a_link_each() -> None:
    pair = replace(SHORT, devices=2)
    one, two = (
        pass_terms(placed([[1]] * 7, shape=shape), shape, DEVICES, backward=False) for shape in (SHORT, pair)
    )
    assert two["cxl0"] == pytest.approx(2 * one["cxl0"]) and two["link"] == pytest.approx(one["link"])
