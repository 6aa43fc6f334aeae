from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.test_fleet import ENGINE, LATENCY, LONG, ONE_BY_ONE, SHORT, TIMES, UNIT, even, steady, traces

from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.step import LatencyModel
from hgpu.simulator.balance import BALANCERS
from hgpu.simulator.elastic import ElasticRun, Orders, Seen, Unchanging, play
from hgpu.simulator.elastic_pool import ElasticPool
from hgpu.simulator.fleet import EnginePool, Fleet, replay
from hgpu.simulator.routing import Routing
from hgpu.workloads.trace import Trace

ALONE = Routing((SHORT, LONG), ((1.0,), (1.0,)))


def kind(
    name: str = "a", engines: int = 1, latency: LatencyModel = LATENCY, engine: EngineOptions = ENGINE
) -> ElasticPool:
    return ElasticPool(name, latency, engine, engines, 3600.0)  # a dollar a second


class Script:
    """Orders at given looks; notes what it is shown."""

    def __init__(self, interval_s: float, machines: dict[float, int], routing: Routing = ALONE) -> None:
        self.interval_s, self.machines, self.routing = interval_s, machines, routing
        self.now = 1
        self.seen: list[Seen] = []

    def orders(self, seen: Seen) -> Orders:
        self.seen.append(seen)
        self.now = self.machines.get(seen.now_s, self.now)
        return Orders((self.now,), self.routing)


def scripted(trace: Trace, script: Script, startup_s: float = 10.0, first: int = 1) -> ElasticRun:
    script.now = first
    pool = kind(latency=UNIT, engine=ONE_BY_ONE)
    return play((pool,), trace, script, Orders((first,), script.routing), startup_s)


@settings(max_examples=100)
@given(
    traces(),
    st.sampled_from(sorted(BALANCERS)),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 10),
    st.sampled_from([0.5, 2.0, inf]),
)
def test_a_fleet_that_nobody_changes_is_the_replay_to_the_last_bit(
    trace: Trace, balance: str, left: int, right: int, tenths: int, interval_s: float
) -> None:
    routing = Routing((SHORT, LONG), ((tenths / 10, 1 - tenths / 10), (0.0, 1.0)))
    fixed = tuple(
        EnginePool(name, LATENCY, ENGINE, n, n, 3600.0 * n) for name, n in (("a", left), ("b", right))
    )
    orders = Orders((left, right), routing)
    fleet = Fleet(fixed, routing)
    expected = replay(fleet, trace, balance)
    made = play((kind("a"), kind("b")), trace, Unchanging(orders, interval_s), orders, 10.0, balance)
    for name in TIMES:
        assert np.array_equal(getattr(made.run.served, name), getattr(expected.served, name))
    assert np.array_equal(made.run.tier, expected.tier) and np.array_equal(made.run.pool, expected.pool)
    assert (made.run.requests, made.run.tier_requests) == (expected.requests, expected.tier_requests)
    for row, other in zip(made.run.pools, expected.pools, strict=True):
        assert row.utilization == pytest.approx(other.utilization)
        assert replace_utilization(row) == replace_utilization(other)
    assert made.usd == pytest.approx(fleet.usd_per_hour * expected.makespan_s / 3600)
    assert made.orders == ((0.0, (left, right)),)


def replace_utilization(row: object) -> object:
    return row.model_copy(update={"utilization": 0.0})  # type: ignore[attr-defined]


def test_a_machine_is_paid_from_its_order_and_serves_when_it_has_started() -> None:
    """Each request takes 5 s, one at a time; a second machine is ordered at 4 and serves from 14."""
    trace = even([0.0, 1.0, 20.0, 20.5], 10, 5)
    made = scripted(trace, Script(4.0, {4.0: 2}))
    assert made.run.served.end_s.tolist() == [5.0, 10.0, 25.0, 25.5]
    assert [(row.from_s, row.to_s) for row in made.paid] == [(0.0, 25.5), (4.0, 25.5)]
    assert made.usd == pytest.approx(25.5 + 21.5)


def test_a_machine_that_is_taken_away_ends_its_requests_and_is_paid_until_then() -> None:
    """Two machines have two requests each when one must go at 4; what comes later goes to the other one."""
    trace = even([0.0, 0.0, 0.0, 0.0, 6.0, 30.0], 10, 5)
    made = scripted(trace, Script(4.0, {4.0: 1}), first=2)
    assert sorted(made.run.served.end_s[:4]) == [5.0, 5.0, 10.0, 10.0]
    assert made.run.served.end_s[4:].tolist() == [15.0, 35.0]  # behind the two that stay
    assert sorted(row.to_s for row in made.paid) == [10.0, 35.0]
    assert made.usd == pytest.approx(45.0)


def test_a_machine_that_is_taken_away_while_it_starts_is_paid_until_then() -> None:
    made = scripted(even([0.0, 30.0], 10, 5), Script(4.0, {4.0: 3, 8.0: 2, 12.0: 1}))
    assert [(row.from_s, row.to_s) for row in made.paid] == [(0.0, 35.0), (4.0, 12.0), (4.0, 8.0)]
    assert made.orders == ((0.0, (1,)), (4.0, (3,)), (8.0, (2,)), (12.0, (1,)))
    assert made.usd == pytest.approx(35 + 8 + 4)


def test_the_machine_with_the_fewest_requests_goes() -> None:
    trace = even([0.0, 0.0, 0.5, 5.25, 20.0], 10, 5)  # two to one machine, one to the other, then one more
    made = scripted(trace, Script(6.0, {6.0: 1}), first=2)
    assert made.run.served.end_s[3] - made.run.served.start_s[3] == 5.0
    assert made.run.rejected == 0 and len(made.paid) == 2


def test_a_pool_without_machines_serves_nobody() -> None:
    made = scripted(even([0.0, 9.0, 10.0, 25.0], 10, 5), Script(4.0, {4.0: 0, 12.0: 1}))
    assert made.run.rejected == 2 and made.run.served.arrival_s.tolist() == [0.0, 25.0]


def test_a_controller_is_shown_what_has_happened() -> None:
    script = Script(4.0, {8.0: 2})
    scripted(even([0.0, 0.0, 0.0, 4.0, 30.0], 10, 5), script, startup_s=6.0)
    shown = [(seen.now_s, seen.arrived, len(seen.ended)) for seen in script.seen[:4]]
    assert shown == [(4.0, 3, 0), (8.0, 1, 1), (12.0, 0, 1), (16.0, 0, 1)]
    assert script.seen[1].ended == ((10, 5),)
    states = [seen.pools[0] for seen in script.seen[:4]]
    assert [(s.ready, s.starting) for s in states] == [(1, 0), (1, 0), (1, 1), (2, 0)]
    assert [(s.running, s.waiting) for s in states] == [(1, 2), (1, 2), (1, 1), (1, 0)]


class Follower:
    """Orders by all that it is shown."""

    interval_s = 2.0

    def orders(self, seen: Seen) -> Orders:
        in_flight = seen.pools[0].in_flight
        return Orders((1 + (seen.arrived + in_flight + sum(map(sum, seen.ended))) % 4,), ALONE)


def test_the_future_changes_no_decision() -> None:
    """Two traces that are the same until 20 s lead to the same orders until then."""
    one, other = steady(300, 8.0), steady(300, 8.0)
    later = other.arrivals_s > 20.0
    lengths = np.where(later, 1200, other.input_tokens)
    arrivals_s = np.where(later, 20 + 3 * (other.arrivals_s - 20), other.arrivals_s)
    other = replace(other, arrivals_s=arrivals_s, input_tokens=lengths)
    made = [play((kind(),), trace, Follower(), Orders((1,), ALONE), 3.0) for trace in (one, other)]
    before = [[row for row in run.orders if row[0] <= 20.0] for run in made]
    assert before[0] == before[1] and len(before[0]) > 4
    assert made[0].orders != made[1].orders


@settings(max_examples=60)
@given(
    traces(), st.lists(st.integers(0, 4), max_size=20), st.sampled_from([0.0, 1.0, 5.0]), st.integers(1, 2)
)
def test_no_request_is_lost_and_no_machine_is_free(
    trace: Trace, wanted: list[int], startup_s: float, engines: int
) -> None:
    script = Script(0.5, {0.5 * (n + 1): count for n, count in enumerate(wanted)})
    made = play((kind(engines=engines),), trace, script, Orders((1,), ALONE), startup_s)
    assert len(made.run.served.end_s) + made.run.rejected == trace.requests
    assert not np.isnan(made.run.served.end_s).any()
    assert all(0 <= row.from_s <= row.to_s <= made.run.makespan_s for row in made.paid)
    assert made.usd == pytest.approx(sum(row.to_s - row.from_s for row in made.paid))


def test_orders_for_other_pools_are_refused() -> None:
    orders = Orders((1, 1), ALONE)
    with pytest.raises(InputError):
        play((kind(),), even([0.0, 9.0], 10, 5), Unchanging(orders, 1.0), Orders((1,), ALONE), 1.0)
