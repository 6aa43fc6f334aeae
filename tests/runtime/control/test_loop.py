from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.control.cases import controlled

from hgpu.core.workload import Bucket, Workload
from hgpu.runtime.control.goal import Outcome, Solving, goal_of
from hgpu.runtime.control.loop import Decision, Load, Loop, Rules
from hgpu.runtime.control.pools import ControlledPool
from hgpu.runtime.control.step import step_towards
from hgpu.solvers.demand import Demand

RULES = Rules(interval_s=30.0, startup_s=60.0, hold_s=300.0)
COUNTS = st.lists(st.integers(0, 9), min_size=2, max_size=2)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demand, tuple[ControlledPool, ...]]:
    return controlled(tmp_path_factory.mktemp("results"))


def at(demand: Demand, rate_rps: float) -> Demand:
    workload = demand.service.workload.at_rate(rate_rps)
    return replace(demand, service=replace(demand.service, workload=workload))


def lengths_of(workload: Workload, requests: int) -> tuple[tuple[int, int], ...]:
    """Requests of the planned mix, as near as whole ones can be."""
    return tuple(
        (round(b.input_tokens), round(b.output_tokens))
        for b in workload.buckets
        for _ in range(round(b.share * requests))
    )


class Driver:
    """A loop with engines that answer `startup` looks after they were asked for."""

    def __init__(self, demand: Demand, pools: Sequence[ControlledPool], first: Sequence[int]) -> None:
        self.loop = Loop(demand, pools, first, RULES)
        self.lengths = lengths_of(demand.service.workload, 100)
        self.ready = list(first)
        self.asked = [list(first)] * 3
        self.now_s = 0.0

    def look(self, rate_rps: float, ready: Sequence[int] | None = None) -> Decision:
        self.now_s += 30.0
        load = Load(self.now_s, 30.0, rate_rps * 30.0, self.lengths)
        decision = self.loop.look(load, self.ready if ready is None else ready)
        self.asked = [*self.asked[1:], list(decision.engines)]
        self.ready = [min(one) for one in zip(*self.asked, strict=True)]
        return decision


def test_a_constant_load_keeps_a_constant_fleet(case: tuple[Demand, tuple[ControlledPool, ...]]) -> None:
    demand, pools = case
    first = goal_of(demand, pools, (0, 0), Solving()).engines
    driver = Driver(demand, pools, first)
    fleets = {driver.look(demand.service.workload.rate_rps).engines for _ in range(60)}
    assert fleets == {first}


def test_more_is_ordered_at_once_and_less_only_after_the_hold(
    case: tuple[Demand, tuple[ControlledPool, ...]],
) -> None:
    demand, pools = case
    driver = Driver(demand, pools, goal_of(demand, pools, (0, 0), Solving()).engines)
    calm = [driver.look(4.0) for _ in range(30)][-1].usd_per_hour
    assert driver.look(40.0).usd_per_hour > calm
    for _ in range(30):
        busy = driver.look(40.0)
    fell = [driver.look(4.0) for _ in range(80)]
    assert all(decision.need_rps >= 40.0 for decision in fell[: int(300 / 30) - 1])
    assert fell[-1].usd_per_hour < busy.usd_per_hour


def test_nothing_goes_while_a_replacement_does_not_answer(
    case: tuple[Demand, tuple[ControlledPool, ...]],
) -> None:
    """The fleet is all of the dearer kind; whatever the load, none of it goes before the others answer."""
    demand, pools = case
    dear = next(number for number, pool in enumerate(pools) if pool.point.gpu == "A100-80GB")
    first = [0, 0]
    first[dear] = 12
    driver = Driver(demand, pools, first)
    for _ in range(40):
        decision = driver.look(1.0, ready=first)
    cheap = 1 - dear
    assert decision.goal[cheap] > 0 and decision.engines[dear] == 12
    assert driver.look(1.0, ready=decision.engines).engines[dear] < 12


def test_caps_hold_and_what_they_cost_is_said(tmp_path: Path) -> None:
    demand, pools = controlled(tmp_path, L4=2, A100=1)
    driver = Driver(demand, pools, (1, 1))
    for _ in range(30):
        decision = driver.look(400.0)
    assert decision.outcome is Outcome.CAPPED and 0 < decision.served < 1
    assert "max" in decision.reason
    assert all(n <= (pool.most or 0) for n, pool in zip(decision.engines, pools, strict=True))


def test_a_budget_holds(case: tuple[Demand, tuple[ControlledPool, ...]]) -> None:
    demand, pools = case
    goal = goal_of(at(demand, 400.0), pools, (0, 0), Solving(budget_usd_per_hour=9.0))
    cost = sum(n * pool.offer.usd_per_hour for n, pool in zip(goal.engines, pools, strict=True))
    assert goal.outcome is Outcome.CAPPED and 0 < cost <= 9.0 and "budget" in goal.reason


def test_an_impossible_load_keeps_the_fleet_and_says_why(
    case: tuple[Demand, tuple[ControlledPool, ...]],
) -> None:
    demand, pools = case
    long = replace(demand.service.workload.buckets[-1], max_total_tokens=10**7, share=1.0)
    workload = replace(demand.service.workload, buckets=(long,))
    there = replace(demand, service=replace(demand.service, workload=workload))
    goal = goal_of(there, pools, (3, 2), Solving())
    assert goal.outcome is Outcome.KEPT and goal.engines == (3, 2)
    assert "max_model_len" in goal.reason


def test_requests_that_no_pool_serves_are_said_and_the_others_are_scaled_for(
    case: tuple[Demand, tuple[ControlledPool, ...]],
) -> None:
    """Prompts that are longer than any engine takes neither stop the loop nor count for nothing."""
    demand, pools = case
    workload = demand.service.workload
    low = min(b.output_high for b in workload.buckets)
    beyond = Bucket(20_000, 40_000, 0, low, 30_000.0, 5.0, 0.0)
    grown = replace(workload, buckets=(*workload.buckets, beyond))
    driver = Driver(demand, pools, (1, 0))
    driver.loop = Loop(replace(demand, service=replace(demand.service, workload=grown)), pools, (1, 0), RULES)
    driver.lengths = (*driver.lengths, *[(30_000, 5)] * 10)
    for _ in range(30):
        decision = driver.look(40.0)
    assert 0.02 < decision.beyond < 0.2
    assert decision.outcome is Outcome.SOLVED and sum(decision.engines) > 1


def test_what_no_load_asked_for_is_no_reason_to_change(
    case: tuple[Demand, tuple[ControlledPool, ...]],
) -> None:
    """From a fleet that carries the load, a change must save more than it counts for."""
    demand, pools = case
    best = goal_of(demand, pools, (0, 0), Solving()).engines
    dear = tuple(n + (pool.point.gpu == "L4") for n, pool in zip(best, pools, strict=True))
    assert goal_of(demand, pools, dear, Solving(change_usd_per_hour=5.0)).engines == dear
    assert goal_of(demand, pools, dear, Solving(change_usd_per_hour=0.0)).engines != dear


@given(rates=st.tuples(st.floats(0.1, 60), st.floats(0.1, 60)))
def test_a_larger_load_never_costs_less(
    case: tuple[Demand, tuple[ControlledPool, ...]], rates: tuple[float, float]
) -> None:
    """From nothing, solved exactly; with changes counted a dearer fleet may be kept for less load."""
    demand, pools = case
    exact = Solving(change_usd_per_hour=0.0, gap=0.0)
    low, high = (
        sum(
            n * pool.offer.usd_per_hour
            for n, pool in zip(goal_of(at(demand, rate), pools, (0, 0), exact).engines, pools, strict=True)
        )
        for rate in sorted(rates)
    )
    assert low <= high + 1e-9


@given(COUNTS, COUNTS, COUNTS, st.lists(st.integers(0, 9) | st.none(), min_size=2, max_size=2), st.booleans())
def test_a_step_keeps_to_caps_and_takes_nothing_that_is_needed(
    case: tuple[Demand, tuple[ControlledPool, ...]],
    goal: list[int],
    ordered: list[int],
    ready: list[int],
    most: list[int | None],
    may_shrink: bool,
) -> None:
    pools = tuple(replace(pool, most=cap) for pool, cap in zip(case[1], most, strict=True))
    made = step_towards(goal, ordered, ready, pools, may_shrink)
    there = all(have >= want for have, want in zip(ready, goal, strict=True))
    for count, want, have, cap in zip(made, goal, ordered, most, strict=True):
        assert cap is None or count <= cap
        assert count >= min(want, count if cap is None else cap)
        if not (there and may_shrink):
            assert count >= (have if cap is None else min(have, cap))
        elif cap is None:
            assert count == want


def test_the_same_past_gives_the_same_decisions(case: tuple[Demand, tuple[ControlledPool, ...]]) -> None:
    demand, pools = case
    drivers = [Driver(demand, pools, (2, 1)) for _ in range(2)]
    rates = [4.0, 9.0, 2.0, 30.0, 1.0] * 5
    assert [drivers[0].look(rate) for rate in rates] == [drivers[1].look(rate) for rate in rates]
