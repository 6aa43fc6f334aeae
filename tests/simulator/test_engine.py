import dataclasses

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from simulator.reference import Reference

from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel, StepModel, prefill_batch
from hgpu.simulator.arrivals import Arrivals, ClosedLoop, FixedCosts
from hgpu.simulator.engine import Engine, simulate
from hgpu.simulator.result import EngineRun, Measure
from hgpu.workloads.trace import Trace, ordered_trace

STEP = StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, knee_tokens=200.0, sharpness=4.0)
LATENCY = LatencyModel(STEP, 400_000, 0.0, 0.0, 0.0, Provenance.FITTED)
ENGINE = EngineOptions(max_num_batched_tokens=2048, max_num_seqs=256, max_model_len=8192)
# A step that takes a second and 1/16 of a second a token: sums are exact, and easy to make by hand.
SECOND = LatencyModel(StepModel(1.0, 0.0, 0.0, 0.0, 0.0625, 1.0, 1.0), 400_000, 0, 0, 0, Provenance.FITTED)
UNIT = LatencyModel(StepModel(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0), 400_000, 0, 0, 0, Provenance.FITTED)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def trace(*requests: tuple[float, int, int]) -> Trace:
    """Make a trace of (arrival, input, output)."""
    arrivals_s, inputs, outputs = zip(*requests, strict=True)
    return ordered_trace("t", np.array(arrivals_s, float), ints(*inputs), ints(*outputs), "test")


def with_kv(latency: LatencyModel, tokens: int) -> LatencyModel:
    return dataclasses.replace(latency, kv_capacity_tokens=tokens)


@st.composite
def cases(draw: st.DrawFn) -> tuple[LatencyModel, EngineOptions, Arrivals, FixedCosts, int]:
    """Draw few requests on a tiny engine, often short of blocks, sequences or budget."""
    requests = draw(st.integers(1, 12))
    length = st.integers(1, 24)
    inputs = ints(*draw(st.lists(length, min_size=requests, max_size=requests)))
    outputs = ints(*draw(st.lists(length | st.integers(30, 90), min_size=requests, max_size=requests)))
    block_tokens = draw(st.sampled_from([1, 2, 4, 16]))
    longest = int(-(-(inputs + outputs - 1).max() // block_tokens)) * block_tokens
    capacity = longest + draw(st.integers(0, 40)) * draw(st.integers(0, 4))
    seqs = draw(st.integers(1, 8))
    engine = EngineOptions(seqs + draw(st.integers(0, 20)), seqs, 1000)
    step = draw(
        st.builds(
            StepModel,
            overhead_s=st.sampled_from([1.0, 0.013]),
            linear_s=st.sampled_from([0.0, 0.5, 0.0071]),
            pair_s=st.sampled_from([0.0, 1e-4]),
            kv_s=st.sampled_from([0.0, 0.25, 1e-3]),
            seq_s=st.sampled_from([0.0, 0.01]),
            prefill_s=st.sampled_from([0.0, 0.5, 0.0031]),
            knee_tokens=st.just(4.0),
            sharpness=st.sampled_from([1.0, 4.0]),
        )
    )
    latency = LatencyModel(step, capacity, 0, 0, 0, Provenance.FITTED)
    costs = draw(
        st.sampled_from([FixedCosts(), FixedCosts(0.5, 0.125, 0.25), FixedCosts(0.02, 0.001, 0.003)])
    )
    if draw(st.booleans()):
        return latency, engine, ClosedLoop(draw(st.integers(1, 12)), inputs, outputs), costs, block_tokens
    gap = st.sampled_from([0.0, 1.0, 2.0, 0.1, 7.3, 100.0])
    times = np.cumsum(draw(st.lists(gap, min_size=requests, max_size=requests)))
    return latency, engine, ordered_trace("t", times, inputs, outputs, "test"), costs, block_tokens


@settings(max_examples=600, deadline=None)
@given(cases())
def test_events_give_what_steps_give(
    case: tuple[LatencyModel, EngineOptions, Arrivals, FixedCosts, int],
) -> None:
    latency, engine, arrivals, costs, block_tokens = case
    run = simulate(latency, engine, arrivals, costs, block_tokens)
    log = Reference(latency, engine, arrivals, costs, block_tokens).run()
    event(f"preempts: {bool(run.preemptions.sum())}")
    assert run.arrival_s.tolist() == [r.arrival_s for r in log.requests]
    assert run.start_s.tolist() == [r.start_s for r in log.requests]
    assert run.first_token_s.tolist() == [r.token_s[0] for r in log.requests]
    assert run.end_s.tolist() == [r.token_s[-1] for r in log.requests]
    assert run.preemptions.tolist() == [r.preemptions for r in log.requests]
    assert run.steps == log.steps
    assert run.busy_s == pytest.approx(log.busy_s)
    assert run.max_kv_tokens == log.most_blocks * block_tokens
    # What must hold of any scheduler.
    assert run.max_kv_tokens <= run.kv_capacity_tokens <= latency.kv_capacity_tokens
    assert log.idle_with_work == 0
    assert all(len(r.token_s) == r.output for r in log.requests)
    assert np.all(run.arrival_s + costs.request_s <= run.start_s) and np.all(run.start_s < run.first_token_s)
    assert np.all(run.first_token_s <= run.end_s)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_the_engine_never_idles_while_there_is_work(
    case: tuple[LatencyModel, EngineOptions, Arrivals, FixedCosts, int],
) -> None:
    """Work conservation: idle time is exactly the time in which no request is at the scheduler."""
    latency, engine, arrivals, costs, block_tokens = case
    run = simulate(latency, engine, arrivals, costs, block_tokens)
    reached, left = run.arrival_s + costs.request_s, run.end_s - costs.token_s
    present_s, until_s = 0.0, 0.0
    for begin, end in sorted(zip(reached, left, strict=True)):
        present_s += max(0.0, end - max(begin, until_s))
        until_s = max(until_s, end)
    assert run.busy_s == pytest.approx(present_s)


def test_long_runs_of_decodes_are_bit_for_bit_those_of_single_steps() -> None:
    requests = trace((0, 3000, 700), (0.5, 100, 900), (9.0, 5000, 300), (9.0, 20, 1), (60.0, 40, 40))
    run = simulate(LATENCY, ENGINE, requests)
    log = Reference(LATENCY, ENGINE, requests, FixedCosts(), 16).run()
    assert run.end_s.tolist() == [r.token_s[-1] for r in log.requests]
    assert run.steps == log.steps > 900


def test_one_request_alone_waits_for_its_chunks_then_for_its_decodes() -> None:
    run = simulate(LATENCY, ENGINE, trace((0, 5000, 3)))
    chunks = [prefill_batch(2048), prefill_batch(2048, 2048), prefill_batch(904, 4096)]
    assert run.ttft_s == pytest.approx([sum(STEP.step_s(chunk) for chunk in chunks)])
    assert run.steps == 5
    assert run.tpot_s == pytest.approx([0.017 + 1e-7 * 5001.5 + 2e-5], rel=1e-3)
    assert run.queue_s.tolist() == [0.0]
    assert run.utilization == pytest.approx(1.0) and run.mean_batch == 1.0


def test_two_at_once_share_a_step_and_the_budget_goes_to_the_first() -> None:
    """Budget 8: step 1 is A's 6 tokens and 2 of B's 7; in step 2, A decodes and B ends its prompt."""
    engine = EngineOptions(max_num_batched_tokens=8, max_num_seqs=4, max_model_len=100)
    run = simulate(SECOND, engine, trace((0, 6, 3), (0, 7, 2)))
    step_s = 1 + 2 * 0.0625
    assert run.first_token_s.tolist() == [step_s, 2 * step_s]
    assert run.end_s.tolist() == [3 * step_s, 3 * step_s]
    assert run.tpot_s.tolist() == [step_s, step_s]


def test_a_decode_without_a_block_preempts_the_last_which_is_computed_again() -> None:
    """Four blocks of 2 tokens, steps of one second.

    Step 1 computes both prompts (a block each), step 2 opens a second block for both, step 3 fills them.
    In step 4, A needs a third: B goes, with 4 computed and 3 yielded tokens. Its 5 tokens need 3 blocks, and
    only 1 is free: it waits until A has ended in step 6. Step 7 computes them and yields B's last token.
    """
    engine = EngineOptions(max_num_batched_tokens=16, max_num_seqs=4, max_model_len=100)
    run = simulate(with_kv(UNIT, 8), engine, trace((0, 2, 6), (0, 2, 4)), block_tokens=2)
    assert run.preemptions.tolist() == [0, 1]
    assert run.first_token_s.tolist() == [1.0, 1.0]
    assert run.end_s.tolist() == [6.0, 7.0]
    assert run.max_kv_tokens == 8


def test_the_preempted_go_before_those_who_wait() -> None:
    engine = EngineOptions(max_num_batched_tokens=16, max_num_seqs=2, max_model_len=100)
    run = simulate(with_kv(UNIT, 8), engine, trace((0, 2, 6), (0, 2, 4), (0, 2, 1)), block_tokens=2)
    assert run.end_s.tolist() == [6.0, 7.0, 7.0]
    assert run.start_s.tolist() == [0.0, 0.0, 6.0]


def test_a_prompt_that_does_not_fit_as_a_whole_is_not_begun() -> None:
    engine = EngineOptions(max_num_batched_tokens=4, max_num_seqs=4, max_model_len=100)
    run = simulate(with_kv(UNIT, 16), engine, trace((0, 8, 4), (0, 10, 1), (0, 1, 1)), block_tokens=2)
    assert run.start_s.tolist() == [
        0.0,
        5.0,
        7.0,
    ]  # the third waits behind the second: first come first served


def test_a_completion_counts_before_an_arrival_at_the_same_moment_is_scheduled() -> None:
    engine = EngineOptions(max_num_batched_tokens=8, max_num_seqs=1, max_model_len=100)
    run = simulate(UNIT, engine, trace((0, 4, 3), (3.0, 4, 1), (3.0, 4, 1)))
    assert run.first_token_s.tolist() == [1.0, 4.0, 5.0]


def test_equal_arrivals_keep_their_order() -> None:
    engine = EngineOptions(max_num_batched_tokens=8, max_num_seqs=1, max_model_len=100)
    requests = trace(*((0.0, 8, 1) for _ in range(20)))
    assert simulate(UNIT, engine, requests).end_s.tolist() == list(range(1, 21))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**31))
def test_a_closed_loop_keeps_its_requests_in_flight(concurrency: int, requests: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    loop = ClosedLoop(concurrency, rng.integers(1, 3000, requests), rng.integers(1, 50, requests))
    run = simulate(LATENCY, ENGINE, loop, FixedCosts(0.01, 0.001, 0.002))
    for now_s in [0.0, *run.end_s.tolist()]:
        flying = int(((run.arrival_s <= now_s) & (run.end_s > now_s)).sum())
        unsent = int((run.arrival_s > now_s).sum())
        assert flying == concurrency or (flying < concurrency and not unsent)


def test_fixed_costs_fall_where_they_belong() -> None:
    engine = EngineOptions(max_num_batched_tokens=8, max_num_seqs=1, max_model_len=100)
    run = simulate(UNIT, engine, trace((0, 8, 3)), FixedCosts(request_s=0.5, step_s=0.25, token_s=0.125))
    assert run.queue_s.tolist() == [0.5]
    assert run.ttft_s.tolist() == [0.5 + 1.25 + 0.125]
    assert run.tpot_s.tolist() == [1.25]


@pytest.mark.parametrize(
    ("requests", "why"),
    [
        (trace((0, 8000, 193), (0, 5, 5)), "1 of 2 requests"),
        (trace((0, 900, 200), (0, 900, 126), (0, 900, 125)), "2 of 3 requests"),
        (trace((0, 5, 0)), "no input or no output"),
    ],
)
def test_requests_that_never_fit_are_refused_and_counted(requests: Trace, why: str) -> None:
    with pytest.raises(InputError) as caught:
        simulate(with_kv(LATENCY, 1024), ENGINE, requests)
    assert why in str(caught.value)


def test_options_that_vllm_refuses_are_refused() -> None:
    with pytest.raises(InputError, match="max_num_batched_tokens 100 is below max_num_seqs 256"):
        simulate(LATENCY, EngineOptions(max_num_batched_tokens=100), trace((0, 5, 5)))


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_fixed_costs_are_seconds_from_zero_up(bad: float) -> None:
    with pytest.raises(InputError, match="step_s"):
        FixedCosts(step_s=bad)


def test_a_closed_loop_that_cannot_turn_is_refused() -> None:
    for concurrency, inputs, outputs in [
        (0, ints(1), ints(1)),
        (1, ints(), ints()),
        (1, ints(1, 2), ints(1)),
    ]:
        with pytest.raises(InputError):
            ClosedLoop(concurrency, inputs, outputs)


def test_quantiles_are_of_the_requests_that_have_the_measure() -> None:
    engine = EngineOptions(max_num_batched_tokens=8, max_num_seqs=1, max_model_len=100)
    run: EngineRun = simulate(UNIT, engine, trace((0, 8, 1), (0, 8, 1), (0, 8, 1)))
    assert run.quantiles(Measure.TTFT, [0, 50, 100]).tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(run.quantiles(Measure.TPOT, [50])).all()
    assert run.output_tok_per_s == 1.0 and run.makespan_s == 3.0


@settings(max_examples=300, deadline=None)
@given(cases(), st.lists(st.sampled_from([0.0, 0.3, 1.0, 5.0, 40.0]), max_size=20))
def test_an_engine_advanced_bit_by_bit_does_what_it_does_at_once(
    case: tuple[LatencyModel, EngineOptions, Arrivals, FixedCosts, int], pauses_s: list[float]
) -> None:
    """And what it says it holds, each time that it is looked at, is what the whole run shows."""
    latency, options, arrivals, costs, block_tokens = case
    if isinstance(arrivals, ClosedLoop):
        return
    whole = simulate(latency, options, arrivals, costs, block_tokens)
    engine = Engine(latency, options, costs, block_tokens)
    looks = np.cumsum([0.0, *pauses_s]).tolist()
    left_s = whole.end_s - costs.token_s
    for number, now_s in enumerate(arrivals.arrivals_s.tolist()):
        for moment_s in [*[look for look in looks if look <= now_s], now_s]:
            if moment_s >= engine.until_s:
                engine.advance(moment_s)
                held = int((left_s[:number] > moment_s + 1e-9).sum())
                about = int((left_s[:number] > moment_s - 1e-9).sum())
                assert held <= engine.in_flight(moment_s) <= about
        engine.give(now_s, int(arrivals.input_tokens[number]), int(arrivals.output_tokens[number]))
    engine.advance(float("inf"))
    run = engine.run()
    for name in ("arrival_s", "start_s", "first_token_s", "end_s", "output_tokens", "preemptions"):
        assert getattr(run, name).tolist() == getattr(whole, name).tolist()
    assert (run.steps, run.seq_steps, run.max_kv_tokens) == (
        whole.steps,
        whole.seq_steps,
        whole.max_kv_tokens,
    )
    assert run.busy_s == pytest.approx(whole.busy_s)
    assert engine.in_flight(float("inf")) == 0


def test_a_request_in_the_past_is_refused() -> None:
    engine = Engine(UNIT, ENGINE)
    engine.advance(2.0)
    with pytest.raises(InputError, match="arrive at 1"):
        engine.give(1.0, 5, 5)
    engine.give(3.0, 5, 5)
    with pytest.raises(InputError, match=r"arrive at 2\.5"):
        engine.give(2.5, 5, 5)
