"""The step model grows with every part of a batch, and a fraction of a chunk pays its fraction."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.copies import ExpertCopies
from hgpu.core.step import StepBatch, StepModel, at_most_one, prefill_batch

STEP = StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, knee_tokens=200.0, sharpness=4.0)
DEAR = replace(STEP, prefill_s=3e-3)
AMOUNT = st.floats(0, 1e9, allow_subnormal=False)


@given(AMOUNT, AMOUNT)
def test_at_most_one_is_the_minimum_to_the_last_bit(one: float, other: float) -> None:
    assert at_most_one(one) == min(one, 1.0)
    assert at_most_one(np.array([one, other])).tolist() == [min(one, 1.0), min(other, 1.0)]
    assert at_most_one(round(one)) == min(round(one), 1)


def test_any_prefill_pays_once_and_decodes_pay_nothing() -> None:
    decode = StepBatch(decode_seqs=8, decode_context_tokens=800)
    assert DEAR.step_s(decode) == STEP.step_s(decode)
    for seqs in (1, 2, 50):
        batch = replace(prefill_batch(512), prefill_seqs=seqs, decode_seqs=8, decode_context_tokens=800)
        assert DEAR.step_s(batch) - STEP.step_s(batch) == pytest.approx(3e-3)
    half = StepBatch(prefill_tokens=10, prefill_seqs=0.5)
    assert DEAR.step_s(half) - STEP.step_s(half) == pytest.approx(1.5e-3)


def test_a_step_without_its_prefill_is_a_decode_step() -> None:
    mixed = replace(prefill_batch(512, 1024), decode_seqs=8, decode_context_tokens=800)
    assert mixed.decodes == StepBatch(decode_seqs=8, decode_context_tokens=800)
    assert (mixed.phase, mixed.decodes.phase) == ("mixed", "decode")


@given(st.tuples(*[st.floats(0, 5000)] * 6), st.tuples(*[st.floats(0, 5000)] * 6))
def test_a_larger_step_is_never_faster(small: tuple[float, ...], more: tuple[float, ...]) -> None:
    large = [a + b for a, b in zip(small, more, strict=True)]
    assert 0 < DEAR.step_s(StepBatch(*small)) <= DEAR.step_s(StepBatch(*large)) * (1 + 1e-12)


def test_arrays_give_what_numbers_give() -> None:
    batches = [prefill_batch(100, 7), StepBatch(decode_seqs=3, decode_context_tokens=9), StepBatch(5, 0.25)]
    columns = [np.array(column) for column in zip(*map(astuple, batches), strict=True)]
    together = DEAR.step_s(StepBatch(*columns))
    assert together.tolist() == pytest.approx([DEAR.step_s(batch) for batch in batches], rel=1e-15)


COPIES = ExpertCopies((1.0, 4.0, 64.0), (10e-3, 10e-3, 40e-3), ((0.0, 9e-3, 9e-3), (4e-3, 16e-3, 20e-3)))
COPYING = replace(DEAR, copies=COPIES)


@pytest.mark.parametrize("tokens", [1, 2, 4, 30, 64, 200])
def test_copies_ahead_hide_behind_the_step_and_the_others_are_waited_for(tokens: int) -> None:
    batch = StepBatch(decode_seqs=tokens, decode_context_tokens=tokens * 100)
    ahead_s = [np.interp(tokens, COPIES.tokens, row_s) for row_s in COPIES.ahead_s]
    exposed_s = np.interp(tokens, COPIES.tokens, COPIES.exposed_s)
    compute_s = np.mean([max(DEAR.step_s(batch), row_s) for row_s in ahead_s])
    assert COPYING.step_s(batch) == pytest.approx(compute_s + exposed_s, rel=1e-12)
    waiting = replace(DEAR, copies=replace(COPIES, ahead_s=()))
    assert waiting.step_s(batch) == pytest.approx(DEAR.step_s(batch) + exposed_s, rel=1e-12)


@given(st.tuples(*[st.floats(0, 5000)] * 6), st.tuples(*[st.floats(0, 5000)] * 6))
def test_a_larger_step_is_never_faster_with_copies(small: tuple[float, ...], more: tuple[float, ...]) -> None:
    large = [a + b for a, b in zip(small, more, strict=True)]
    assert 0 < COPYING.step_s(StepBatch(*small)) <= COPYING.step_s(StepBatch(*large)) * (1 + 1e-12)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9000)), min_size=1))
def test_arrays_give_the_same_bits_as_numbers_with_copies(rows: list[tuple[int, int]]) -> None:
    seqs, context = (np.array(column, float) for column in zip(*rows, strict=True))
    together = COPIES.step_s(seqs, context * 1e-6)
    pairs = zip(seqs.tolist(), context.tolist(), strict=True)
    assert together.tolist() == [COPIES.step_s(seqs, context * 1e-6) for seqs, context in pairs]
