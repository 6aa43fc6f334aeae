"""The phase policy in the simulated engine."""

import dataclasses

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from simulator.phase_reference import PhaseReference
from simulator.test_engine import ENGINE, LATENCY, STEP, UNIT, cases, trace

from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.phases import PhaseOptions
from hgpu.core.step import LatencyModel
from hgpu.latency.phases import overtaken_s
from hgpu.simulator.arrivals import Arrivals, FixedCosts
from hgpu.simulator.engine import Engine, simulate
from hgpu.workloads.replay import poisson_trace

Case = tuple[LatencyModel, EngineOptions, Arrivals, FixedCosts, int]
TIMES = ("arrival_s", "start_s", "first_token_s", "end_s", "preemptions")

policies = st.builds(
    PhaseOptions,
    ageing_tok_per_s=st.sampled_from([None, 0.25, 1.0, 15.0]),
    tpot_s=st.sampled_from([None, 0.05, 1.0, 1.5, 4.0, 30.0]),
    least_tokens=st.sampled_from([1, 4, 16]),
)


@settings(max_examples=1000, deadline=None)
@given(cases(), policies)
def test_events_give_what_steps_give_under_the_policy(case: Case, phases: PhaseOptions) -> None:
    latency, engine, arrivals, costs, block_tokens = case
    run = simulate(latency, engine, arrivals, costs, block_tokens, phases=phases)
    log = PhaseReference(latency, engine, arrivals, costs, block_tokens, phases).run()
    event(f"preempts: {bool(run.preemptions.sum())}")
    event(f"ages: {phases.ageing_tok_per_s is not None}, paces: {phases.tpot_s is not None}")
    assert run.arrival_s.tolist() == [r.arrival_s for r in log.requests]
    assert run.start_s.tolist() == [r.start_s for r in log.requests]
    assert run.first_token_s.tolist() == [r.token_s[0] for r in log.requests]
    assert run.end_s.tolist() == [r.token_s[-1] for r in log.requests]
    assert run.preemptions.tolist() == [r.preemptions for r in log.requests]
    assert (run.steps, run.max_kv_tokens) == (log.steps, log.most_blocks * block_tokens)
    # What must hold of any policy: nobody starves, the cache has its limit, no step is empty.
    assert not np.isnan(run.end_s).any()
    assert run.max_kv_tokens <= run.kv_capacity_tokens <= latency.kv_capacity_tokens
    assert log.idle_with_work == 0


@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from([1, 4, 16]))
def test_options_that_switch_nothing_on_change_no_bit(case: Case, least_tokens: int) -> None:
    latency, engine, arrivals, costs, block_tokens = case
    plain = simulate(latency, engine, arrivals, costs, block_tokens)
    off = PhaseOptions(least_tokens=least_tokens)
    phased = simulate(latency, engine, arrivals, costs, block_tokens, phases=off)
    for name in TIMES:
        assert getattr(phased, name).tolist() == getattr(plain, name).tolist()


@settings(max_examples=300, deadline=None)
@given(cases(), st.sampled_from([0.25, 1.0, 15.0]), st.sampled_from([None, 1.5]))
def test_a_prompt_is_overtaken_only_by_who_comes_soon_enough(
    case: Case, ageing_tok_per_s: float, tpot_s: float | None
) -> None:
    """A prompt of L tokens is never overtaken by a request that comes L/γ seconds after it, or later.

    The books are of those that were never preempted: a preempted request is longer than its prompt.
    """
    latency, engine, arrivals, costs, block_tokens = case
    run = simulate(
        latency, engine, arrivals, costs, block_tokens, phases=PhaseOptions(ageing_tok_per_s, tpot_s)
    )
    overtakes = 0
    for first in range(len(run.start_s)):
        bound_s = overtaken_s(int(arrivals.input_tokens[first]), ageing_tok_per_s)
        for later in range(first + 1, len(run.start_s)):
            if run.start_s[later] < run.start_s[first]:
                overtakes += 1
                assert run.arrival_s[later] - run.arrival_s[first] < bound_s
    event(f"overtakes: {bool(overtakes)}")


def test_the_shortest_prompt_is_next_and_the_age_counts() -> None:
    """A runs from 0 to 4 s; at 4 s the scores with γ = 1 are B: 20 − 3.5, C: 18 − 1.5, D: 30 − 3.5."""
    engine = EngineOptions(max_num_batched_tokens=64, max_num_seqs=1, max_model_len=100)
    requests = trace((0, 4, 4), (0.5, 20, 1), (0.5, 30, 1), (2.5, 17, 1))
    assert simulate(UNIT, engine, requests).start_s.tolist() == [0, 4, 5, 6]
    aged = simulate(UNIT, engine, requests, phases=PhaseOptions(ageing_tok_per_s=1.0))
    assert aged.start_s.tolist() == [0, 5, 6, 4]
    older = simulate(UNIT, engine, requests, phases=PhaseOptions(ageing_tok_per_s=1.51))
    assert older.start_s.tolist() == [0, 4, 6, 5]


def test_a_short_prompt_that_fits_passes_a_long_one_that_does_not() -> None:
    """And it does so when it comes, though the long one at the head of the queue is blocked by the cache."""
    small = dataclasses.replace(UNIT, kv_capacity_tokens=32)
    engine = EngineOptions(max_num_batched_tokens=64, max_num_seqs=4, max_model_len=100)
    requests = trace((0, 16, 12), (1.0, 20, 1), (4.5, 2, 1))
    fcfs = simulate(small, engine, requests, block_tokens=2)
    aged = simulate(small, engine, requests, block_tokens=2, phases=PhaseOptions(ageing_tok_per_s=0.25))
    assert fcfs.start_s.tolist() == [0, 12, 12]
    assert aged.start_s.tolist() == [0, 12, 5]


def test_a_budget_keeps_the_objective_that_large_steps_break() -> None:
    """A decodes when a prompt of 6,000 tokens comes: in one step it would hold A up for half a second."""
    engine = EngineOptions(max_num_batched_tokens=8192, max_num_seqs=64, max_model_len=8192)
    requests = trace((0, 100, 40), (0.1, 6000, 2))
    tpot_s = 2 * STEP.overhead_s + STEP.linear_s + 0.01
    stock = simulate(LATENCY, engine, requests)
    paced = simulate(LATENCY, engine, requests, phases=PhaseOptions(tpot_s=tpot_s))
    assert paced.tpot_s[0] <= tpot_s < stock.tpot_s[0]
    assert stock.ttft_s[1] < paced.ttft_s[1] < 3 * stock.ttft_s[1]


def test_no_token_is_late_where_decodes_alone_are_in_time() -> None:
    """Every request keeps its TPOT under overload, up to the least chunk that a step is worth."""
    load = poisson_trace("sharegpt", 12.0, requests=400, seed=1)
    tpot_s = 0.05
    run = simulate(LATENCY, ENGINE, load, phases=PhaseOptions(ageing_tok_per_s=15.0, tpot_s=tpot_s))
    stock = simulate(LATENCY, ENGINE, load)
    assert run.preemptions.sum() == 0 and run.utilization > 0.95
    assert run.tpot_s.max() <= tpot_s < stock.tpot_s.max()


def test_an_engine_held_by_a_driver_follows_the_policy_too() -> None:
    load = poisson_trace("sharegpt", 12.0, requests=200, seed=2)
    phases = PhaseOptions(ageing_tok_per_s=15.0, tpot_s=0.05)
    whole = simulate(LATENCY, ENGINE, load, phases=phases)
    engine = Engine(LATENCY, ENGINE, phases=phases)
    for number, now_s in enumerate(load.arrivals_s.tolist()):
        engine.advance(now_s)
        engine.give(now_s, int(load.input_tokens[number]), int(load.output_tokens[number]))
    engine.advance(float("inf"))
    for name in TIMES:
        assert getattr(engine.run(), name).tolist() == getattr(whole, name).tolist()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("inf"), float("nan")])
def test_a_policy_that_means_nothing_is_refused(bad: float) -> None:
    for phases in (PhaseOptions(ageing_tok_per_s=bad), PhaseOptions(tpot_s=bad)):
        with pytest.raises(InputError, match="of the phases"):
            simulate(LATENCY, ENGINE, trace((0, 5, 5)), phases=phases)
