"""Prompts and decodes in two lanes of one device."""

import dataclasses

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from simulator.lane_reference import LaneReference
from simulator.test_engine import ENGINE, LATENCY, STEP, UNIT, ints, trace, with_kv

from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.phases import PhaseOptions
from hgpu.core.step import LatencyModel, StepModel, prefill_batch
from hgpu.simulator.arrivals import ClosedLoop, FixedCosts
from hgpu.simulator.engine import simulate
from hgpu.simulator.partitioned import Partition, PartitionedEngine, simulate_partitioned
from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Trace, ordered_trace

ONE = UNIT.step  # a second a step

# Seconds that binary fractions hold exactly: both simulations must see the same ties.
steps = st.builds(
    StepModel,
    overhead_s=st.sampled_from([1.0, 0.5, 2.0]),
    linear_s=st.just(0.0),
    pair_s=st.sampled_from([0.0, 2**-8]),
    kv_s=st.sampled_from([0.0, 2**-6]),
    seq_s=st.sampled_from([0.0, 2**-4]),
    prefill_s=st.sampled_from([0.0, 0.5]),
    knee_tokens=st.just(1.0),
    sharpness=st.just(1.0),
)
Case = tuple[LatencyModel, Partition, EngineOptions, Trace, int, float | None]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    requests = draw(st.integers(1, 10))
    length = st.integers(1, 24)
    inputs = ints(*draw(st.lists(length, min_size=requests, max_size=requests)))
    outputs = ints(*draw(st.lists(length, min_size=requests, max_size=requests)))
    block_tokens = draw(st.sampled_from([1, 2, 4, 16]))
    longest = int(-(-(inputs + outputs - 1).max() // block_tokens)) * block_tokens
    capacity = longest + draw(st.integers(0, 30)) * draw(st.integers(0, 4))
    seqs = draw(st.integers(1, 8))
    engine = EngineOptions(seqs + draw(st.integers(0, 20)), seqs, 1000)
    gaps = draw(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.25, 64.0]), min_size=requests, max_size=requests)
    )
    arrivals = ordered_trace("t", np.cumsum(gaps), inputs, outputs, "test")
    partition = Partition(draw(steps), draw(steps), draw(st.sampled_from([1.0, 2.0, 4.0])))
    ageing_tok_per_s = draw(st.sampled_from([None, 0.25, 1.0, 16.0]))
    return with_kv(UNIT, capacity), partition, engine, arrivals, block_tokens, ageing_tok_per_s


@settings(max_examples=800, deadline=None)
@given(cases())
def test_events_give_what_the_lanes_give(case: Case) -> None:
    latency, partition, engine, arrivals, block_tokens, ageing_tok_per_s = case
    phases = PhaseOptions(ageing_tok_per_s)
    run = simulate_partitioned(latency, partition, engine, arrivals, None, block_tokens, phases)
    log = LaneReference(latency, partition, engine, arrivals, block_tokens, ageing_tok_per_s).run()
    event(f"preempts: {bool(run.preemptions.sum())}")
    assert run.start_s.tolist() == [r.start_s for r in log.requests]
    assert run.first_token_s.tolist() == [r.token_s[0] for r in log.requests]
    assert run.end_s.tolist() == [r.token_s[-1] for r in log.requests]
    assert run.preemptions.tolist() == [r.preemptions for r in log.requests]
    assert (run.steps, run.max_kv_tokens) == (log.steps, log.most_blocks * block_tokens)
    assert all(len(r.token_s) == r.output for r in log.requests)
    assert run.max_kv_tokens <= run.kv_capacity_tokens <= latency.kv_capacity_tokens


def test_a_request_alone_has_each_lane_to_itself() -> None:
    """With the whole device's step times in both lanes it meets what it meets on a mixed engine."""
    mixed = simulate(LATENCY, ENGINE, trace((0, 5000, 30)))
    lanes = simulate_partitioned(LATENCY, Partition(STEP, STEP, 1.5), ENGINE, trace((0, 5000, 30)))
    assert lanes.ttft_s.tolist() == mixed.ttft_s.tolist()
    assert lanes.ttft_s == pytest.approx(
        [sum(STEP.step_s(prefill_batch(new, done)) for new, done in ((2048, 0), (2048, 2048), (904, 4096)))]
    )
    assert lanes.tpot_s == pytest.approx(mixed.tpot_s)
    assert lanes.steps == mixed.steps == 32
    assert lanes.utilization == pytest.approx(1.0)


@pytest.mark.parametrize("contention", [1.0, 2.0])
def test_decodes_never_wait_for_a_prompt_but_are_slowed_by_it(contention: float) -> None:
    """A prompt step takes 10 s. A decodes from 10 s on, while B's prompt runs until 20 s."""
    engine = EngineOptions(max_num_batched_tokens=16, max_num_seqs=4, max_model_len=100)
    partition = Partition(dataclasses.replace(ONE, prefill_s=9.0), ONE, contention)
    run = simulate_partitioned(UNIT, partition, engine, trace((0, 2, 3), (2.0, 8, 1)))
    assert run.first_token_s.tolist() == [10.0, 20.0]
    assert run.end_s.tolist() == [10.0 + 2 * contention, 20.0]


def test_half_a_step_beside_a_prompt_is_slowed_by_half() -> None:
    """A decodes from 1 s on, a step of 4 s. B's prompt runs from 2 s to 3 s: a half of that second counts."""
    engine = EngineOptions(max_num_batched_tokens=16, max_num_seqs=4, max_model_len=100)
    partition = Partition(ONE, dataclasses.replace(ONE, overhead_s=4.0), contention=2.0)
    run = simulate_partitioned(UNIT, partition, engine, trace((0, 2, 2), (2.0, 8, 1)))
    assert run.end_s.tolist() == [5.5, 3.0]


def test_a_fixed_cost_falls_on_both_lanes() -> None:
    engine = EngineOptions(max_num_batched_tokens=8, max_num_seqs=1, max_model_len=100)
    costs = FixedCosts(request_s=0.5, step_s=0.25, token_s=0.125)
    run = simulate_partitioned(UNIT, Partition(ONE, ONE), engine, trace((0, 8, 3)), costs)
    assert run.ttft_s.tolist() == [0.5 + 1.25 + 0.125]
    assert run.tpot_s.tolist() == [1.25]


def test_a_closed_loop_turns() -> None:
    rng = np.random.default_rng(0)
    loop = ClosedLoop(7, rng.integers(1, 3000, 60), rng.integers(1, 50, 60))
    run = simulate_partitioned(LATENCY, Partition(STEP, STEP), ENGINE, loop)
    for now_s in [0.0, *run.end_s.tolist()]:
        flying = int(((run.arrival_s <= now_s) & (run.end_s > now_s)).sum())
        assert flying == 7 or (flying < 7 and not (run.arrival_s > now_s).any())


def test_an_engine_advanced_bit_by_bit_does_what_it_does_at_once() -> None:
    load = poisson_trace("sharegpt", 10.0, requests=150, seed=3)
    partition, phases = Partition(STEP, STEP, 1.2), PhaseOptions(ageing_tok_per_s=15.0)
    whole = simulate_partitioned(LATENCY, partition, ENGINE, load, phases=phases)
    engine = PartitionedEngine(LATENCY, partition, ENGINE, phases=phases)
    for number, now_s in enumerate(load.arrivals_s.tolist()):
        engine.advance(now_s)
        assert engine.in_flight(now_s) == int((whole.end_s[:number] >= now_s).sum())
        engine.give(now_s, int(load.input_tokens[number]), int(load.output_tokens[number]))
    engine.advance(float("inf"))
    assert engine.run().end_s.tolist() == pytest.approx(whole.end_s.tolist(), rel=1e-9)


def test_what_means_nothing_is_refused() -> None:
    for bad in (0.5, float("inf"), float("nan")):
        with pytest.raises(InputError, match="contention"):
            Partition(ONE, ONE, bad)
    with pytest.raises(InputError, match="TPOT objective"):
        simulate_partitioned(
            UNIT, Partition(ONE, ONE), ENGINE, trace((0, 5, 5)), phases=PhaseOptions(tpot_s=1.0)
        )
    with pytest.raises(InputError, match="can never be served"):
        simulate_partitioned(with_kv(UNIT, 16), Partition(ONE, ONE), ENGINE, trace((0, 25, 5)))
