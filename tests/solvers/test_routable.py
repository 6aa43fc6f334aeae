"""A plan must hold with what a router knows: the input of a request, not its output."""

from dataclasses import replace

import pytest
from solvers.services import demand

from hgpu.latency.confidence import slower
from hgpu.simulator.fleet import replay
from hgpu.simulator.proof import fleet_of, promise_of
from hgpu.simulator.routing import Routing
from hgpu.solvers.plan import make_plans
from hgpu.workloads.replay import poisson_trace

SPEC = {
    "workload": {"lengths": "sharegpt", "rate_rps": 64, "requests": 20_000},
    "gpus": ["L4", "A100-80GB", "H100-SXM"],
    "offers": {"clouds": ["aws", "gcp", "azure"]},
}


def planned(tmp_path, routing):
    service = demand(tmp_path, confidence=0.9, routing=routing, **SPEC)
    return service, make_plans([service], gap=1e-4)[0]


def by_input(plan):
    """The shares of each input, whatever the output: all that a router can follow."""
    rows = {}
    for row in plan.payload.routing:
        rates = rows.setdefault(row.input_high, {})
        for pool, share in row.shares.items():
            rates[pool] = rates.get(pool, 0.0) + share * row.rate_rps
    return {
        high: {pool: rate / sum(rates.values()) for pool, rate in rates.items()}
        for high, rates in rows.items()
    }


def attained_ttft(service, plan):
    """The part of requests within the objective, where the router knows inputs only."""
    candidates = service.candidates
    models = {point: slower(model, candidates.factor(point)) for point, model in candidates.latency.items()}
    fleet = fleet_of(plan.payload, models)
    names = [row.pool for row in plan.payload.allocation]
    known = by_input(plan)
    shares = tuple(
        tuple(known[bucket.input_high].get(name, 0.0) for name in names) for bucket in fleet.routing.buckets
    )
    routed = replace(fleet, routing=Routing(fleet.routing.buckets, shares))
    promise = promise_of(plan.payload)
    run = replay(routed, poisson_trace(promise.workload, 64, requests=20_000))
    return float((run.served.first_token_s - run.served.arrival_s <= 2.0).mean())


def test_a_plan_is_shared_out_by_input_alone(tmp_path):
    _, plan = planned(tmp_path, "input")
    shares = {}
    for row in plan.payload.routing:
        assert shares.setdefault(row.input_high, row.shares) == pytest.approx(row.shares)


def test_a_plan_by_input_holds_where_one_by_both_lengths_does_not(tmp_path):
    service, plan = planned(tmp_path, "input")
    clairvoyant_service, clairvoyant = planned(tmp_path, "lengths")
    assert clairvoyant.payload.cost_usd_per_hour <= plan.payload.cost_usd_per_hour
    assert attained_ttft(service, plan) >= 0.99
    assert attained_ttft(clairvoyant_service, clairvoyant) < 0.99
