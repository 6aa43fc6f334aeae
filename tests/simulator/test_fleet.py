import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.prefix_tokens import shared_trace

from hgpu.core.errors import UnknownName
from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.slo import Objective, Slo
from hgpu.core.step import LatencyModel, StepModel
from hgpu.core.workload import Bucket
from hgpu.simulator.attainment import attainment
from hgpu.simulator.balance import BALANCERS
from hgpu.simulator.engine import simulate
from hgpu.simulator.fleet import EnginePool, Fleet, FleetRun, replay
from hgpu.simulator.routing import Routing
from hgpu.workloads.trace import Trace, ordered_trace

STEP = StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, knee_tokens=200.0, sharpness=4.0)
LATENCY = LatencyModel(STEP, 20_000, 0, 0, 0, Provenance.FITTED, request_s=0.01)
ENGINE = EngineOptions(max_num_batched_tokens=512, max_num_seqs=32, max_model_len=2000)
# A step takes a second, whatever is in it: times are whole, and sums exact.
UNIT = LatencyModel(StepModel(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0), 20_000, 0, 0, 0, Provenance.FITTED)
ONE_BY_ONE = EngineOptions(max_num_batched_tokens=512, max_num_seqs=1, max_model_len=2000)
SHORT, LONG = Bucket(0, 100, 0, 50, 50, 25, 0.5), Bucket(100, 2500, 0, 50, 500, 25, 0.5)
TIMES = ("arrival_s", "start_s", "first_token_s", "end_s", "output_tokens")


def pool(
    name: str, engines: int, latency: LatencyModel = LATENCY, engine: EngineOptions = ENGINE
) -> EnginePool:
    return EnginePool(name, latency, engine, engines, engines, 2.0 * engines)


def fleet(*pools: EnginePool, short: tuple[float, ...], long: tuple[float, ...]) -> Fleet:
    return Fleet(pools, Routing((SHORT, LONG), (short, long)))


def alone(one: EnginePool) -> Fleet:
    return fleet(one, short=(1.0,), long=(1.0,))


@st.composite
def traces(draw: st.DrawFn, longest_input: int = 3000, longest_output: int = 60) -> Trace:
    """Draw arrivals at quarters of a second, and lengths of which some are in no bucket or too long."""
    count = draw(st.integers(1, 60))
    gaps = st.lists(st.sampled_from([0.0, 0.25, 0.5, 3.0]), min_size=count, max_size=count)
    lengths = [
        st.lists(st.integers(0, top), min_size=count, max_size=count)
        for top in (longest_input, longest_output)
    ]
    columns = [np.array(draw(lists), np.int64) for lists in lengths]
    return ordered_trace("drawn", np.cumsum(draw(gaps)), *columns, "test")


def even(times_s: list[float], input_tokens: int, output_tokens: int) -> Trace:
    """Make requests of equal length."""
    lengths = (np.full(len(times_s), tokens, np.int64) for tokens in (input_tokens, output_tokens))
    return ordered_trace("even", np.array(times_s, float), *lengths, "test")


def steady(requests: int, rate_rps: float) -> Trace:
    rng = np.random.default_rng(7)
    arrivals_s = np.cumsum(rng.exponential(1 / rate_rps, requests))
    inputs, outputs = rng.integers(10, 1500, requests), rng.integers(1, 50, requests)
    return ordered_trace("steady", arrivals_s, inputs, outputs, "test")


def same(one: FleetRun, other: FleetRun) -> bool:
    return one.pools == other.pools and all(
        np.array_equal(getattr(one.served, name), getattr(other.served, name)) for name in TIMES
    )


@pytest.mark.parametrize("balance", BALANCERS)
def test_one_engine_in_one_pool_is_the_engine_simulation(balance: str) -> None:
    trace = steady(300, 8.0)
    run = replay(alone(pool("a", 1)), trace, balance)
    engine = simulate(LATENCY, ENGINE, trace)
    for name in TIMES:
        assert getattr(run.served, name).tolist() == getattr(engine, name).tolist()
    assert run.rejected == 0 and run.makespan_s == engine.makespan_s
    assert run.pools[0].utilization == pytest.approx(engine.utilization)
    assert run.pools[0].mean_batch == pytest.approx(engine.mean_batch)
    assert run.pools[0].preemptions == engine.preemptions.sum()
    assert run.pools[0].max_kv_share == engine.max_kv_tokens / engine.kv_capacity_tokens


def conversations(count: int, turns: int) -> Trace:
    """Make conversations at the same time, each turn with the prompt blocks of the turn before."""
    arrivals_s = [float(turn) for turn in range(turns) for _ in range(count)]
    prompts = [
        (tuple(100 * talk + place for place in range(turn + 1)), 64 * (turn + 1))
        for turn in range(turns)
        for talk in range(count)
    ]
    return shared_trace(arrivals_s, prompts, [8] * len(prompts), size=64)


def test_an_engine_alone_reuses_prefixes_as_in_the_engine_simulation() -> None:
    trace = conversations(3, 6)
    run = replay(alone(pool("a", 1)), trace, prefix_caching=True)
    engine = simulate(LATENCY, ENGINE, trace, prefix_caching=True)
    for name in TIMES:
        assert getattr(run.served, name).tolist() == getattr(engine, name).tolist()
    assert run.pools[0].hit_share == engine.hit_tokens.sum() / trace.input_tokens.sum()


def test_engines_reuse_only_what_they_computed_themselves() -> None:
    """One conversation: an engine alone misses what each turn adds, one of two what two turns add."""
    trace = conversations(1, 6)
    shares = [
        replay(alone(pool("a", engines)), trace, "round_robin", prefix_caching=True).pools[0].hit_share
        for engines in (1, 2)
    ]
    assert shares == [(1 + 2 + 3 + 4 + 5) / 21, (1 + 2 + 3 + 4) / 21]


def test_without_prefix_caching_nothing_is_said_of_hits() -> None:
    run = replay(alone(pool("a", 1)), conversations(3, 6))
    assert run.pools[0].hit_share is None


def test_under_round_robin_each_engine_is_a_simulation_of_its_own() -> None:
    arrivals_s = [0.0, 0.0, 0.0, 1.5, 2.0, 2.25, 2.25, 4.0, 7.0]
    trace = even(arrivals_s, 40, 6)
    run = replay(alone(pool("a", 3, UNIT)), trace, "round_robin")
    for first in range(3):
        mine = arrivals_s[first::3]
        engine = simulate(UNIT, ENGINE, even(mine, 40, 6))
        assert run.served.end_s[first::3].tolist() == (engine.end_s + mine[0]).tolist()


@settings(max_examples=150)
@given(traces(), st.sampled_from(sorted(BALANCERS)), st.integers(0, 3), st.integers(0, 3), st.integers(0, 10))
def test_every_request_is_served_once_or_rejected(
    trace: Trace, balance: str, left: int, right: int, tenths: int
) -> None:
    split = (tenths / 10, 1 - tenths / 10)
    run = replay(fleet(pool("a", left), pool("b", right), short=split, long=(0.0, 1.0)), trace, balance)
    served = run.served
    assert len(served.end_s) + run.rejected == run.requests == trace.requests
    assert sum(row.requests for row in run.pools) == len(served.end_s)
    in_a_bucket = (trace.input_tokens > 0) & (trace.output_tokens > 0)
    in_a_bucket &= (trace.input_tokens <= 2500) & (trace.output_tokens <= 50)
    assert sum(row.requests + row.rejected for row in run.pools) == in_a_bucket.sum()
    fits = in_a_bucket & (trace.input_tokens + trace.output_tokens <= ENGINE.max_model_len)
    if left and right:
        assert served.arrival_s.tolist() == trace.arrivals_s[fits].tolist()
        assert run.input_tokens.tolist() == trace.input_tokens[fits].tolist()
        assert served.output_tokens.tolist() == trace.output_tokens[fits].tolist()
    assert np.all(served.arrival_s <= served.start_s) and np.all(served.start_s < served.first_token_s)
    assert np.all(served.first_token_s <= served.end_s)
    assert all(0 <= row.utilization <= 1 + 1e-9 and 0 <= row.max_kv_share <= 1 for row in run.pools)


def test_shares_of_a_bucket_are_obeyed_to_within_a_request() -> None:
    trace = even([0.5 * number for number in range(101)], 50, 5)
    run = replay(fleet(pool("a", 1), pool("b", 2), short=(0.3, 0.7), long=(1.0, 0.0)), trace)
    assert [row.requests for row in run.pools] == [30, 71]


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 1.0, 2.5, 9.0]), min_size=1, max_size=50),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 12),
)
def test_losing_a_machine_ends_no_request_sooner(
    gaps: list[float], engines: int, output_tokens: int, limit_s: int
) -> None:
    """Of n engines that serve equal requests one by one in turn, request i ends S after the later of its
    arrival and the end of request i − n. Ends rise with i, so that a smaller n ends each no sooner.
    """
    trace = even(np.cumsum(gaps).tolist(), 40, output_tokens)
    whole = alone(pool("a", engines, UNIT, ONE_BY_ONE))
    before, after = (replay(f, trace, "round_robin") for f in (whole, whole.less_a_machine("a")))
    slo = Slo(ttft=Objective(limit_s / 2), e2e=Objective(float(limit_s)))
    attained = [attainment(run.served, run.requests, slo) for run in (before, after)]
    assert attained[1].goodput_share <= attained[0].goodput_share
    for row, less in zip(attained[0].objectives, attained[1].objectives, strict=True):
        assert less.share <= row.share
    if engines > 1:
        assert np.all(after.served.end_s >= before.served.end_s)


def test_a_lost_machine_takes_its_engines_and_its_price_along() -> None:
    pools = (EnginePool("a", LATENCY, ENGINE, engines=8, machines=2, usd_per_hour=10.0), pool("b", 1))
    whole = fleet(*pools, short=(1.0, 0.0), long=(0.0, 1.0))
    left = whole.less_a_machine("a")
    assert (left.pools[0].engines, left.pools[0].machines, left.usd_per_hour) == (4, 1, 7.0)
    assert left.pools[1] == pools[1] and whole.usd_per_hour == 12.0
    with pytest.raises(UnknownName, match="'c'"):
        whole.less_a_machine("c")


def test_a_pool_that_has_no_machine_left_rejects_what_is_routed_to_it() -> None:
    trace = steady(60, 4.0)
    left = fleet(pool("a", 1), pool("b", 2), short=(1.0, 0.0), long=(0.0, 1.0)).less_a_machine("a")
    run = replay(left, trace)
    short = int((trace.input_tokens <= 100).sum())
    assert [(row.requests, row.rejected) for row in run.pools] == [(0, short), (60 - short, 0)]
    nobody = replay(alone(pool("a", 1)).less_a_machine("a"), trace)
    assert nobody.rejected == 60 and nobody.makespan_s == trace.duration_s
    assert attainment(nobody.served, nobody.requests, Slo(ttft=Objective(99.0))).goodput_share == 0.0


def test_a_request_that_fits_no_engine_of_its_pool_is_rejected_there() -> None:
    tight = dataclasses.replace(LATENCY, kv_capacity_tokens=160)
    trace = ordered_trace(
        "t", np.zeros(4), np.array([100, 150, 1990, 2600]), np.array([50, 11, 20, 5]), "test"
    )
    run = replay(fleet(pool("a", 1, tight), pool("b", 1), short=(1.0, 0.0), long=(0.0, 1.0)), trace)
    assert [(row.requests, row.rejected) for row in run.pools] == [(1, 0), (1, 1)]
    assert run.rejected == 2 and run.input_tokens.tolist() == [100, 150]


def test_the_seed_decides_and_nothing_else() -> None:
    trace = steady(300, 40.0)
    two = fleet(pool("a", 3), pool("b", 4), short=(0.5, 0.5), long=(0.4, 0.6))
    first = replay(two, trace, seed=1)
    assert same(first, replay(two, trace, seed=1))
    assert not same(first, replay(two, trace, seed=2))
    assert same(replay(two, trace, "round_robin", 1), replay(two, trace, "round_robin", 2))


def test_looking_at_more_engines_queues_less_where_requests_are_very_unequal() -> None:
    """One request in five takes 50 s and the others 2 s, one by one; 8 engines are busy 70 % of the time."""
    rng = np.random.default_rng(3)
    arrivals_s, outputs = np.cumsum(rng.exponential(2.0, 2000)), np.where(rng.random(2000) < 0.2, 50, 2)
    trace = ordered_trace("t", arrivals_s, np.full(2000, 40), outputs, "test")
    eight = alone(pool("a", 8, UNIT, ONE_BY_ONE))
    queue_s = {name: replay(eight, trace, name).served.queue_s.mean() for name in BALANCERS}
    assert queue_s["least_requests"] < queue_s["power_of_two"] < queue_s["round_robin"]
