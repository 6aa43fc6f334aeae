from dataclasses import replace
from pathlib import Path

import pytest
from runtime.control.cases import controlled

from hgpu.artifacts.payloads.plan import PlanPayload, Proof, ProofRound
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.step import LatencyModel
from hgpu.runtime.control.goal import Solving, goal_of
from hgpu.runtime.control.pools import controlled_pools, demand_of
from hgpu.solvers.plan import make_plans

Planned = tuple[PlanPayload, dict[OperatingPoint, LatencyModel]]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """A plan for 40 requests a second, of one pool."""
    demand, _ = controlled(tmp_path)
    service = replace(demand.service, workload=demand.service.workload.at_rate(40.0))
    (made,) = make_plans([replace(demand, service=service)])
    assert len(made.payload.allocation) == 1
    return made.payload, dict(demand.candidates.latency)


def with_other_pool(planned: Planned) -> PlanPayload:
    """The plan with a second pool, on the other GPU type."""
    plan, models = planned
    (row,) = plan.allocation
    point = next(point for point in models if point != row.point)
    other = row.model_copy(update={"pool": "other", "point": point, "gpu": point.gpu, "offer": "test/other"})
    return plan.model_copy(update={"allocation": [row, other]})


def test_pools_have_the_offers_and_prices_of_the_plan(planned: Planned) -> None:
    plan, models = planned
    (row,) = plan.allocation
    (pool,) = controlled_pools(plan, models, {row.pool: 7})
    assert (pool.name, pool.offer.name, pool.point, pool.most) == (row.pool, row.offer, row.point, 7)
    assert pool.offer.usd_per_hour * row.count == pytest.approx(row.usd_per_hour)


def test_the_planned_rate_asks_for_the_planned_engines(planned: Planned) -> None:
    plan, models = planned
    pools = controlled_pools(plan, models, {})
    goal = goal_of(demand_of(plan, pools, models), pools, (0,), Solving())
    assert goal.engines == (plan.allocation[0].engines,)


def test_the_headroom_of_a_proof_that_held_counts(planned: Planned) -> None:
    plan, models = planned
    (row,) = plan.allocation
    tried = ProofRound(
        cost_usd_per_hour=1.0, fleet="", attained=1.0, target=0.99, headroom={row.point.name: 2.0}
    )
    pools = controlled_pools(plan, models, {})
    for held, times in ((True, 2.0), (False, 1.0)):
        proof = Proof(held=held, trace="", requests=1, rounds=[tried])
        demand = demand_of(plan.model_copy(update={"proof": proof}), pools, models)
        asked = goal_of(demand, pools, (0,), Solving()).engines[0]
        assert asked == pytest.approx(times * row.engines, abs=1)


def test_a_pool_without_a_latency_model_is_never_scaled(planned: Planned) -> None:
    plan, models = with_other_pool(planned), planned[1]
    first, other = plan.allocation
    assert [pool.name for pool in controlled_pools(plan, models, {})] == [first.pool, "other"]
    del models[other.point]
    pools = controlled_pools(plan, models, {})
    assert [pool.name for pool in pools] == [first.pool]
    assert set(demand_of(plan, pools, models).candidates.latency) == {first.point}
    del models[first.point]
    with pytest.raises(InputError, match="latency model"):
        controlled_pools(plan, models, {})


def test_a_cap_is_of_a_pool_that_there_is(planned: Planned) -> None:
    with pytest.raises(UnknownName):
        controlled_pools(*planned, {"t4": 1})


def test_a_plan_without_objectives_cannot_be_scaled_by_load(planned: Planned) -> None:
    plan, models = planned
    pools = controlled_pools(plan, models, {})
    with pytest.raises(InputError):
        demand_of(plan.model_copy(update={"workload": None}), pools, models)
