import random
from math import inf

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from simulator.prefix_reference import PrefixReference
from simulator.prefix_tokens import drawn_prompt, shared_trace

from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel, StepModel
from hgpu.simulator.arrivals import FixedCosts
from hgpu.simulator.engine import Engine, simulate
from hgpu.simulator.prefix import PrefixBlocks
from hgpu.workloads.trace import Trace

Case = tuple[LatencyModel, EngineOptions, Trace, int]
# A step that takes a second whatever it holds, and blocks of two tokens.
UNIT = StepModel(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0)
ENGINE = EngineOptions(max_num_batched_tokens=16, max_num_seqs=4, max_model_len=100)


def with_kv(step: StepModel, tokens: int) -> LatencyModel:
    return LatencyModel(step, tokens, 0, 0, 0, Provenance.FITTED)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw few requests of few prefixes on an engine that is often short of blocks."""
    requests = draw(st.integers(1, 14))
    size, block_tokens = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 3, 4]))
    random_ = random.Random(draw(st.integers(0, 2**31)))
    prompts = [drawn_prompt(random_, size, 24) for _ in range(requests)]
    outputs = [random_.randint(1, random_.choice([2, 10, 30])) for _ in range(requests)]
    times_s = np.cumsum([random_.choice([0.0, 0.0, 1.0, 0.7, 9.0]) for _ in range(requests)]).tolist()
    trace = shared_trace(times_s, prompts, outputs, size)
    longest = -(-int((trace.input_tokens + trace.output_tokens - 1).max()) // block_tokens)
    capacity = block_tokens * (longest + draw(st.integers(0, 30)))
    seqs = draw(st.integers(1, 6))
    engine = EngineOptions(seqs + draw(st.integers(0, 30)), seqs, 1000)
    step = draw(st.sampled_from([UNIT, StepModel(0.013, 0.0071, 1e-4, 1e-3, 0.01, 4.0, 4.0)]))
    return with_kv(step, capacity), engine, trace, block_tokens


@settings(max_examples=600, deadline=None)
@given(cases())
def test_events_give_what_steps_give_with_shared_prefixes(case: Case) -> None:
    latency, engine, trace, block_tokens = case
    run = simulate(latency, engine, trace, FixedCosts(), block_tokens, prefix_caching=True)
    log = PrefixReference(latency, engine, trace, FixedCosts(), block_tokens).run()
    event(f"preempts: {bool(run.preemptions.sum())}, hits: {bool(run.hit_tokens.sum())}")
    assert run.start_s.tolist() == [r.start_s for r in log.requests]
    assert run.first_token_s.tolist() == [r.token_s[0] for r in log.requests]
    assert run.end_s.tolist() == [r.token_s[-1] for r in log.requests]
    assert run.preemptions.tolist() == [r.preemptions for r in log.requests]
    assert run.hit_tokens.tolist() == [log.held[r].hit for r in log.requests]
    assert run.steps == log.steps
    assert run.max_kv_tokens == log.most_blocks * block_tokens
    assert run.max_kv_tokens <= run.kv_capacity_tokens <= latency.kv_capacity_tokens
    assert (run.hit_tokens < trace.input_tokens).all()


@settings(max_examples=300, deadline=None)
@given(cases(), st.lists(st.sampled_from([0.3, 1.0, 5.0]), max_size=40))
def test_an_engine_advanced_bit_by_bit_never_holds_more_than_it_has_and_counts_what_is_there(
    case: Case, pauses_s: list[float]
) -> None:
    latency, options, trace, block_tokens = case
    engine = Engine(latency, options, block_tokens=block_tokens, prefix_tokens=trace.block_tokens)
    kv = engine.kv
    assert isinstance(kv, PrefixBlocks) and trace.prefix_blocks is not None
    columns = (trace.arrivals_s.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist())
    for request in zip(*columns, trace.prefix_blocks, strict=True):
        engine.give(*request)
    for moment_s in [*np.cumsum(pauses_s).tolist(), inf]:
        engine.advance(moment_s)
        held = {block for table in kv.tables.values() for block in table}
        assert all(kv.holders[block] == sum(block in t for t in kv.tables.values()) for block in held)
        assert not any(kv.holders[block] for block in kv.idle)
        assert set(kv.holders) == held | set(kv.idle)
        assert {b for alike in kv.alike.values() for b in alike} | set(kv.name_of) <= set(kv.holders)
        assert len(held) <= kv.used <= kv.total and kv.used + len(kv.idle) <= kv.total
    assert kv.used == 0 and not kv.tables
    whole, run = (
        simulate(latency, options, trace, block_tokens=block_tokens, prefix_caching=True),
        engine.run(),
    )
    for name in ("start_s", "first_token_s", "end_s", "preemptions", "hit_tokens"):
        assert getattr(run, name).tolist() == getattr(whole, name).tolist()
    assert (run.steps, run.max_kv_tokens) == (whole.steps, whole.max_kv_tokens)


def test_the_second_of_two_equal_prompts_computes_its_last_block_only() -> None:
    """Both in one step: a block is cached from the moment that it is scheduled. 8 + 2 tokens of 16."""
    trace = shared_trace([0, 0], [((1, 2), 8), ((1, 2), 8)], [1, 1], size=4)
    run = simulate(with_kv(UNIT, 64), ENGINE, trace, block_tokens=2, prefix_caching=True)
    assert run.hit_tokens.tolist() == [0, 6]
    assert run.end_s.tolist() == [1.0, 1.0]
    assert run.max_kv_tokens == 10


def test_hit_tokens_cost_no_budget() -> None:
    engine = EngineOptions(max_num_batched_tokens=8, max_num_seqs=4, max_model_len=100)
    trace = shared_trace([0, 5], [((1, 2, 3), 24), ((1, 2, 3, 4), 32)], [1, 1], size=8)
    cold = simulate(with_kv(UNIT, 64), engine, trace, block_tokens=2)
    warm = simulate(with_kv(UNIT, 64), engine, trace, block_tokens=2, prefix_caching=True)
    assert cold.ttft_s.tolist() == [3.0, 4.0]
    assert warm.ttft_s.tolist() == [3.0, 1.0]
    assert warm.hit_tokens.tolist() == [0, 24] and not cold.hit_tokens.any()


def test_an_engine_block_that_two_trace_blocks_share_is_a_hit_only_with_both() -> None:
    """Blocks of 3 tokens in trace blocks of 4: of 8 shared tokens 2 blocks, of 4 shared tokens 1."""
    prompts = [((1, 2, 3), 12), ((1, 2, 9), 12), ((1, 8), 8)]
    run = simulate(
        with_kv(UNIT, 60),
        ENGINE,
        shared_trace([0, 5, 9], prompts, [1, 1, 1], size=4),
        block_tokens=3,
        prefix_caching=True,
    )
    assert run.hit_tokens.tolist() == [0, 6, 3]


def test_equal_hashes_after_different_ones_are_different_prefixes() -> None:
    trace = shared_trace([0, 5], [((1, 7), 8), ((2, 7), 8)], [1, 1], size=4)
    run = simulate(with_kv(UNIT, 64), ENGINE, trace, block_tokens=2, prefix_caching=True)
    assert run.hit_tokens.tolist() == [0, 0]


@pytest.mark.parametrize(("other", "hit"), [(4, 8), (6, 6), (12, 0)])
def test_the_tail_of_what_was_used_longest_ago_is_evicted_first(other: int, hit: int) -> None:
    """Six blocks of 2 tokens; five stay cached after the first, and the second takes what it needs."""
    trace = shared_trace([0, 5, 10], [((1,), 10), ((2,), other), ((1,), 10)], [1, 1, 1], size=12)
    run = simulate(with_kv(UNIT, 12), ENGINE, trace, block_tokens=2, prefix_caching=True)
    assert run.hit_tokens.tolist() == [0, 0, hit]


def test_a_preempted_request_finds_what_it_computed() -> None:
    """Two prompts in four blocks. In step 4, A needs a third: B goes, with 3 tokens computed and 3 yielded.

    The block that B hadn't filled goes to A, the full one stays until A has ended in step 5. Step 6 computes
    2 of B's 4 tokens; without caching, all of them take two steps, as the budget is 3.
    """
    engine = EngineOptions(max_num_batched_tokens=3, max_num_seqs=2, max_model_len=100)
    trace = shared_trace([0, 0], [((), 2), ((), 1)], [5, 5], size=2)
    cold = simulate(with_kv(UNIT, 8), engine, trace, block_tokens=2)
    warm = simulate(with_kv(UNIT, 8), engine, trace, block_tokens=2, prefix_caching=True)
    assert cold.preemptions.tolist() == warm.preemptions.tolist() == [0, 1]
    assert cold.end_s.tolist() == [5.0, 8.0] and warm.end_s.tolist() == [5.0, 7.0]
    assert warm.hit_tokens.tolist() == [0, 0]  # they are of first admissions


@settings(max_examples=200, deadline=None)
@given(cases())
def test_without_shared_prefixes_and_preemptions_caching_changes_nothing(case: Case) -> None:
    latency, engine, trace, block_tokens = case
    own = tuple((1000 + number,) for number in range(trace.requests))
    alone = shared_trace(
        trace.arrivals_s.tolist(),
        list(zip(own, trace.input_tokens.tolist(), strict=True)),
        trace.output_tokens.tolist(),
        size=100,
    )
    plain = simulate(latency, engine, alone, block_tokens=block_tokens)
    cached = simulate(latency, engine, alone, block_tokens=block_tokens, prefix_caching=True)
    if not plain.preemptions.any():
        for name in ("start_s", "first_token_s", "end_s", "preemptions", "hit_tokens"):
            assert getattr(cached, name).tolist() == getattr(plain, name).tolist()
        assert (cached.steps, cached.max_kv_tokens) == (plain.steps, plain.max_kv_tokens)
