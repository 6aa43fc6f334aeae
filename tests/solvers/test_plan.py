from dataclasses import replace
from pathlib import Path

import pytest
from solvers.services import demand

from hgpu.core.errors import Infeasible, InputError
from hgpu.solvers.demand import Change, problem_of
from hgpu.solvers.explain import explain
from hgpu.solvers.plan import make_plans
from hgpu.solvers.prove import Prover
from hgpu.workloads.replay import poisson_trace

TIERS = [
    {"name": "interactive", "share": 0.75, "tpot_ms": 60, "ttft_ms": 1000},
    {"name": "batch", "share": 0.25, "e2e_ms": 120_000},
]


def test_confidence_buys_safety_with_money(tmp_path: Path) -> None:
    costs = [
        make_plans([demand(tmp_path, confidence=c)])[0].payload.cost_usd_per_hour for c in (0.5, 0.9, 0.999)
    ]
    assert costs == sorted(costs) and costs[0] < costs[-1]
    plan = make_plans([demand(tmp_path, confidence=0.9)])[0].payload
    assert plan.confidence == 0.9
    assert plan.allocation[0].safety_factor == pytest.approx(1 + 1.2816 * 0.12, rel=1e-4)


def test_each_tier_has_routing_rows_of_its_own_and_no_request_is_lost(tmp_path: Path) -> None:
    plan = make_plans([demand(tmp_path, slo={"tiers": TIERS})])[0].payload
    assert plan.slo is None and [tier.name for tier in plan.tiers] == ["interactive", "batch"]
    by_tier = {
        name: sum(row.rate_rps for row in plan.routing if row.tier == name)
        for name in ("interactive", "batch")
    }
    assert by_tier == {"interactive": pytest.approx(3.0), "batch": pytest.approx(1.0)}
    assert all(sum(row.shares.values()) == pytest.approx(1.0) for row in plan.routing)
    strict = make_plans([demand(tmp_path, slo={"tpot_ms": 60, "ttft_ms": 1000})])[0].payload
    assert plan.cost_usd_per_hour <= strict.cost_usd_per_hour + 1e-9


def test_a_tier_that_nobody_can_serve_is_named(tmp_path: Path) -> None:
    tiers = [{**TIERS[0], "tpot_ms": 1}, TIERS[1]]
    with pytest.raises(Infeasible, match="interactive requests"):
        make_plans([demand(tmp_path, slo={"tiers": tiers})])


def test_two_services_share_what_one_could_have_had_alone(tmp_path: Path) -> None:
    one, two = (demand(tmp_path, key, limits={"L4": 2}) for key in ("one", "two"))
    alone = make_plans([one])[0].payload
    assert [row.gpu for row in alone.allocation] == ["L4"]
    plans = [plan.payload for plan in make_plans([one, two])]
    used = sum(row.count for plan in plans for row in plan.allocation if row.gpu == "L4")
    assert used <= 2
    assert sum(p.cost_usd_per_hour for p in plans) > 2 * alone.cost_usd_per_hour
    for plan in plans:
        assert sum(row.rate_rps for row in plan.routing) == pytest.approx(4.0)


def test_services_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="disagree about the limit 'L4'"):
        make_plans([demand(tmp_path, key, limits={"L4": n}) for key, n in (("one", 1), ("two", 2))])


def test_contradictory_limits_name_each_other(tmp_path: Path) -> None:
    with pytest.raises(Infeasible) as caught:
        make_plans([demand(tmp_path, limits={"gpus": 3}, min_engines=5)])
    assert "gpus: 3" in caught.value.fix and "min_engines: 5" in caught.value.fix


def test_a_budget_says_what_it_serves(tmp_path: Path) -> None:
    plan = make_plans([demand(tmp_path, budget_usd_per_hour=0.75)])[0].payload
    assert 0 < plan.served < 1 and plan.cost_usd_per_hour <= 0.75
    assert sum(row.rate_rps for row in plan.routing) == pytest.approx(4.0 * plan.served, rel=1e-4)


def test_what_runs_is_kept_while_a_change_costs_more_than_it_saves(tmp_path: Path) -> None:
    asked = demand(tmp_path)
    dear = next(offer for offer in asked.service.offers if offer.gpu == "A100-80GB")
    point = next(point for point in asked.candidates.latency if point.gpu == "A100-80GB")
    change = Change({("", dear.name, dear.region, point): 1}, 5.0)
    kept = make_plans([asked], change=change)[0].payload
    assert [(row.gpu, row.engines) for row in kept.allocation] == [("A100-80GB", 1)]
    free = make_plans([asked], change=replace(change, usd_per_hour=0.0))[0].payload
    assert {row.gpu for row in free.allocation} == {"L4"}


def test_an_explanation_is_what_planning_again_would_cost(tmp_path: Path) -> None:
    asked = demand(tmp_path, limits={"L4": 1})
    cost = make_plans([asked])[0].payload.cost_usd_per_hour
    said = explain(asked)
    looser = make_plans([demand(tmp_path, limits={"L4": 2})])[0].payload.cost_usd_per_hour
    cap = next(row for row in said.prices if row.bound == "L4: 1")
    assert cap.binding and cap.change_usd_per_hour == pytest.approx(looser - cost)
    for row in said.prices:
        if row.step.startswith("+") and "ms" in row.step and row.change_usd_per_hour is not None:
            assert row.change_usd_per_hour <= 1e-9
    assert all(row.cost_usd_per_hour is None or row.cost_usd_per_hour >= cost for row in said.alternatives)
    costs = [row.cost_usd_per_hour for row in said.flips if row.cost_usd_per_hour is not None]
    assert costs == sorted(costs)


def test_a_model_without_experts_has_none_to_offload(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has none"):
        demand(tmp_path, modes=["mixed", "offload"])


def test_spot_machines_are_derated_and_kept_within_their_share(tmp_path: Path) -> None:
    offers = {"clouds": ["gcp", "aws", "azure"], "markets": ["on_demand", "spot"]}
    half = problem_of([demand(tmp_path, offers=offers, spot={"max_share": 0.5})])
    assert set(half.preemptible_shares) == {0.5}
    spot = [c for c in half.columns if c.offer.market == "spot"]
    plain = {c.point: c for c in half.columns if c.offer.market == "on_demand"}
    for column in spot:
        assert max(column.capacity_rps) < max(plain[column.point].capacity_rps)


def test_a_proved_plan_holds_on_the_requests_that_the_first_one_missed(tmp_path: Path) -> None:
    asked = demand(tmp_path, workload={"lengths": "chat", "rate_rps": 12, "requests": 2000})
    poisson = poisson_trace(asked.service.workload, 12, requests=4000, seed=3)
    bursts = replace(poisson, arrivals_s=(poisson.arrivals_s // 20) * 20)
    (plan,) = Prover([asked], [bursts]).prove()
    proof = plan.payload.proof
    assert proof is not None and proof.held and len(proof.rounds) > 1
    assert proof.rounds[0].attained < proof.rounds[0].target <= proof.rounds[-1].attained
    assert plan.payload.cost_usd_per_hour == proof.rounds[-1].cost_usd_per_hour
    assert proof.rounds[0].cost_usd_per_hour < proof.rounds[-1].cost_usd_per_hour


def test_a_cap_that_forbids_a_fleet_that_holds_is_said_not_hidden(tmp_path: Path) -> None:
    asked = demand(tmp_path, limits={"machines": 2})
    poisson = poisson_trace(asked.service.workload, 4, requests=2000, seed=3)
    bursts = replace(poisson, arrivals_s=(poisson.arrivals_s // 200) * 200)
    (plan,) = Prover([asked], [bursts]).prove()
    proof = plan.payload.proof
    assert proof is not None and not proof.held
    assert all(row.attained < row.target for row in proof.rounds)
