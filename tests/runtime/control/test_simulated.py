from dataclasses import replace

import numpy as np
import pytest
from runtime.control.cases import controlled

from hgpu.runtime.control.goal import Outcome, Solving, goal_of
from hgpu.runtime.control.loop import Loop, Rules
from hgpu.runtime.control.pools import ControlledPool
from hgpu.runtime.control.simulated import SimulatedLoop, elastic_pools, first_orders
from hgpu.simulator.elastic import ElasticRun, play
from hgpu.solvers.demand import Demand
from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Trace

RULES = Rules(interval_s=20.0, startup_s=40.0, hold_s=120.0)
Case = tuple[Demand, tuple[ControlledPool, ...]]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    demand, pools = controlled(tmp_path_factory.mktemp("results"))
    workload = demand.service.workload.at_rate(20.0)
    return replace(demand, service=replace(demand.service, workload=workload)), pools


def waves(demand: Demand, ends: bool = True) -> Trace:
    """45 minutes at 20 requests a second, a third of it at 60; or, from 20 minutes on, at 20."""
    even = poisson_trace(demand.service.workload, 20.0, duration_s=4500.0, seed=3)
    times_s = np.interp(even.arrivals_s, [0, 900, 3600, 4500], [0, 900, 1800, 2700])
    if not ends:
        later = times_s > 1200
        times_s = np.where(later, 1200 + (times_s - 1200) * 3, times_s)
    return replace(even, arrivals_s=times_s)


def controlled_run(case: Case, trace: Trace) -> tuple[ElasticRun, SimulatedLoop]:
    demand, pools = case
    engines = goal_of(demand, pools, (0, 0), Solving()).engines
    first = first_orders(demand, pools, engines)
    controller = SimulatedLoop(Loop(demand, pools, engines, RULES), first.routing)
    return play(elastic_pools(demand, pools), trace, controller, first, RULES.startup_s), controller


def test_it_follows_the_load_and_serves_everyone(case: Case) -> None:
    run, controller = controlled_run(case, waves(case[0]))
    assert run.run.rejected == 0
    spent = [decision.usd_per_hour for decision in controller.decisions]
    calm, busy, late = max(spent[5:40]), max(spent[50:85]), spent[-1]
    assert busy > 1.5 * calm and late < busy / 1.5
    assert all(decision.outcome is Outcome.SOLVED for decision in controller.decisions)
    assert run.usd < 0.8 * max(spent) * run.run.makespan_s / 3600


def test_the_order_book_is_what_was_decided(case: Case) -> None:
    run, controller = controlled_run(case, waves(case[0]))
    book = dict(run.orders)
    last = run.orders[0][1]
    for decision in controller.decisions:
        assert book.get(decision.now_s, last) == decision.engines
        last = decision.engines


def test_another_future_changes_no_decision_before_it(case: Case) -> None:
    (one, first), (other, second) = (controlled_run(case, waves(case[0], ends)) for ends in (True, False))
    before = [[row for row in c.decisions if row.now_s <= 1200] for c in (first, second)]
    assert before[0] == before[1] and len(before[0]) == 60
    assert one.usd != other.usd


def test_routing_knows_the_whole_grid_and_only_engines_that_are_ready(case: Case) -> None:
    demand, pools = case
    first = first_orders(demand, pools, (0, 3))
    for bucket, row in zip(first.routing.buckets, first.routing.shares, strict=True):
        assert row == (0.0, 1.0), bucket.name
