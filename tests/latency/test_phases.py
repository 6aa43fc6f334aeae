"""The order and the budget of prompts: what the simulator and the vLLM plugin decide by."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.phases import PhaseOptions
from hgpu.core.step import StepBatch, StepModel
from hgpu.latency.phases import Pending, beside, counted_from_s, overtaken_s, place, prompt_tokens, slack_s

STEP = StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, knee_tokens=200.0, sharpness=4.0)
DECODES = StepBatch(decode_seqs=8, decode_context_tokens=4000)
PROMPT = Pending(computed=0, remaining=5000)
KEPT = PhaseOptions(tpot_s=0.05)
AMOUNT = st.floats(0, 1e-2, allow_subnormal=False)

steps = st.builds(
    StepModel,
    overhead_s=AMOUNT,
    linear_s=AMOUNT,
    pair_s=AMOUNT,
    kv_s=AMOUNT,
    seq_s=AMOUNT,
    knee_tokens=st.floats(1, 4096),
    sharpness=st.floats(1, 16),
    expert_reuse=st.floats(0, 1),
    expert_weight_share=st.floats(0, 1),
    prefill_s=AMOUNT,
)
prompts = st.builds(Pending, st.integers(0, 8192), st.integers(1, 8192))
decoding = st.builds(
    lambda seqs, tokens: StepBatch(decode_seqs=seqs, decode_context_tokens=seqs * tokens),
    st.integers(1, 256),
    st.integers(1, 4096),
)


@given(steps, decoding, prompts, st.integers(1, 8192))
def test_a_step_of_prompts_alone_never_pays(
    step: StepModel, decodes: StepBatch, pending: Pending, tokens: int
) -> None:
    alone = replace(beside(decodes, pending, tokens), decode_seqs=0, decode_context_tokens=0)
    apart_s = step.step_s(alone) + step.step_s(decodes)
    assert step.step_s(beside(decodes, pending, tokens)) <= apart_s * (1 + 1e-9)


@given(
    st.integers(1, 100_000),
    st.floats(0, 1e4),
    st.integers(1, 100_000),
    st.floats(0, 1e4),
    st.floats(0.1, 1e5),
)
def test_nobody_overtakes_a_prompt_that_came_longer_ago_than_the_bound(
    tokens: int, arrival_s: float, others: int, after_s: float, ageing: float
) -> None:
    later = place(others, arrival_s + after_s, ageing)
    if later < place(tokens, arrival_s, ageing):
        assert after_s < overtaken_s(tokens, ageing) * (1 + 1e-6) + 1e-6


def test_the_shorter_prompt_is_next_until_the_longer_one_has_aged() -> None:
    long, ageing = place(1000, 0.0, 100.0), 100.0
    assert place(50, 9.0, ageing) < long
    assert long < place(50, 10.0, ageing)


def test_of_the_same_place_the_first_to_come_is_next() -> None:
    assert place(100, 1.0, 100.0) < place(0, 2.0, 100.0)


@given(steps, decoding, prompts, st.integers(1, 8192), st.floats(1e-3, 1), st.floats(0, 2))
def test_the_budget_is_the_most_that_keeps_the_slack(
    step: StepModel, decodes: StepBatch, pending: Pending, limit: int, tpot_s: float, allowed_s: float
) -> None:
    options = PhaseOptions(tpot_s=tpot_s, least_tokens=1)
    tokens = prompt_tokens(step, options, decodes, pending, limit, allowed_s)
    if step.step_s(decodes) > tpot_s:
        assert tokens == limit
        return
    fits = [n for n in range(1, limit + 1) if step.step_s(beside(decodes, pending, n)) <= allowed_s]
    assert tokens == (fits[-1] if fits else 0)


def test_an_engine_without_decodes_takes_all() -> None:
    assert prompt_tokens(STEP, KEPT, StepBatch(), PROMPT, 2048, 0.0) == 2048


def test_saved_time_is_spent_on_a_larger_chunk() -> None:
    now = prompt_tokens(STEP, KEPT, DECODES, PROMPT, 4096, KEPT.tpot_s)
    later = prompt_tokens(STEP, KEPT, DECODES, PROMPT, 4096, 2 * KEPT.tpot_s)
    assert 0 < now < later < 4096


def test_a_chunk_that_is_hardly_worth_its_step_waits_unless_it_ends_the_prompt() -> None:
    few = replace(KEPT, least_tokens=10_000)
    assert prompt_tokens(STEP, few, DECODES, replace(PROMPT, remaining=20_000), 20_000, 0.05) == 0
    assert prompt_tokens(STEP, few, DECODES, replace(PROMPT, remaining=9), 4096, 0.05) >= 9


def test_prompts_are_held_back_only_where_that_keeps_the_objective() -> None:
    """A decode step alone takes 17 ms here, so that no budget keeps 10 ms."""
    assert prompt_tokens(STEP, replace(KEPT, tpot_s=0.010), DECODES, PROMPT, 4096, 1e-3) == 4096
    assert prompt_tokens(STEP, KEPT, DECODES, PROMPT, 4096, 1e-3) == 0


def test_a_request_in_time_is_counted_from_its_first_token() -> None:
    assert counted_from_s(0.05, tokens=10, first_s=3.0, now_s=3.4) == 3.0


@given(st.floats(1e-3, 1), st.integers(1, 1000), st.floats(0, 100), st.floats(0, 1000))
def test_a_request_whose_slack_is_gone_has_one_objective_to_go(
    tpot_s: float, tokens: int, first_s: float, elapsed_s: float
) -> None:
    now_s = first_s + elapsed_s
    from_s = counted_from_s(tpot_s, tokens, first_s, now_s)
    left_s = slack_s(tpot_s, tokens, now_s - from_s)
    assert left_s > 0
    if from_s != first_s:
        assert left_s == pytest.approx(tpot_s, rel=1e-6, abs=1e-9)
