"""From a service and latency models to the plan: columns, the solve, its baselines and routing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hgpu.artifacts.payloads.plan import Baseline, PlanPayload, Prediction, Solver
from hgpu.core.allocation import Pool
from hgpu.core.errors import Infeasible
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.provenance import Provenance, weakest
from hgpu.core.step import LatencyModel
from hgpu.latency.capacity import Capacity, capacities, lengths_of, percentiles
from hgpu.latency.queueing import steady_state
from hgpu.solvers.allocation import Column, Problem, Solution, only_gpu, solve
from hgpu.solvers.limits import limits_of
from hgpu.solvers.reasons import check_buckets, forbidden
from hgpu.solvers.rows import allocation_rows, pool_names, routing_rows
from hgpu.specs.service import Service


@dataclass(frozen=True, slots=True)
class Candidates:
    """The operating points with a latency model, and why the others have none."""

    latency: Mapping[OperatingPoint, LatencyModel]
    refused: Mapping[OperatingPoint, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan's payload and the seconds that it took."""

    payload: PlanPayload
    timings: dict[str, float]


def make_plan(
    service: Service, candidates: Candidates, gap: float = 0.0, time_limit_s: float = 60.0
) -> Planned:
    """Return the minimal-cost plan of a service.

    Raises Infeasible where a bucket can't be served, or the limits can't hold, with the reason
    and the nearest objective that could be met.
    """
    workload = service.workload
    served = {
        point: capacities(latency, point.engine, workload.buckets, service.slo)
        for point, latency in candidates.latency.items()
    }
    check_buckets(service, served, candidates.refused)
    problem = _problem(service, served, gap, time_limit_s)
    solution = solve(problem)
    names = pool_names(solution.allocation)
    refusals = forbidden(service, served, candidates.refused)
    predicted = [
        _predict(
            service,
            candidates.latency[pool.point],
            pool,
            names[number],
            _pool_rates(problem, solution, number),
        )
        for number, pool in enumerate(solution.allocation.pools)
    ]
    payload = _payload(problem, solution, service.name, [row.provenance for row in predicted])
    payload = payload.model_copy(
        update={
            "predicted": predicted,
            "forbidden": refusals,
            "model": service.model,
            "model_source": service.model_source,
            "slo": service.slo,
            "workload": workload,
        }
    )
    return Planned(payload, {"build_s": solution.build_s, "solve_s": solution.solve_s})


def plan_of_problem(problem: Problem, service: str) -> Planned:
    """Return the plan of a problem whose capacities are given instead of derived (Mélange files)."""
    solution = solve(problem)
    payload = _payload(problem, solution, service, [Provenance.MEASURED])
    return Planned(payload, {"build_s": solution.build_s, "solve_s": solution.solve_s})


def _problem(
    service: Service, served: Mapping[OperatingPoint, tuple[Capacity, ...]], gap: float, time_limit_s: float
) -> Problem:
    columns = tuple(
        Column(offer, point, tuple(capacity.rate_rps for capacity in served[point]))
        for point in served
        for offer in service.offers
        if offer.gpu == point.gpu
        and offer.gpu_count >= point.tp
        and any(c.rate_rps > 0 for c in served[point])
    )
    workload = service.workload
    return Problem(
        tuple(bucket.name for bucket in workload.buckets),
        tuple(workload.rate_rps * bucket.share for bucket in workload.buckets),
        columns,
        tuple(limits_of(service, columns)),
        gap,
        time_limit_s,
    )


def _pool_rates(problem: Problem, solution: Solution, number: int) -> list[float]:
    shares = solution.allocation.shares
    return [rate * shares[b][number] for b, rate in enumerate(problem.rates_rps)]


def _predict(
    service: Service, latency: LatencyModel, pool: Pool, name: str, rates_rps: Sequence[float]
) -> Prediction:
    """Predict a pool's latencies at its load, spread evenly over its engines."""
    rates = np.array([rates_rps]) / pool.engines
    state = steady_state(
        latency, pool.point.engine, lengths_of(service.workload.buckets), rates, *percentiles(service.slo)
    )
    weights = rates[0] / max(rates.sum(), 1e-300)
    used = weights > 0
    return Prediction(
        pool=name,
        rate_rps=float(rates.sum() * pool.engines),
        ttft_mean_s=float(weights[used] @ state.ttft_mean_s[0, used]),
        ttft_slo_s=float(state.ttft_high_s[0, used].max(initial=0.0)),
        tpot_mean_s=float(weights[used] @ state.tpot_mean_s[0, used]),
        tpot_slo_s=float(state.tpot_high_s[0, used].max(initial=0.0)),
        concurrency=float(state.concurrency[0, 0]),
        provenance=latency.provenance,
    )


def _payload(
    problem: Problem, solution: Solution, service: str, sources: Sequence[Provenance]
) -> PlanPayload:
    allocation = solution.allocation
    baselines = _baselines(problem)
    costs = [row.cost_usd_per_hour for row in baselines if row.cost_usd_per_hour is not None]
    cost = allocation.usd_per_hour
    return PlanPayload(
        status=str(solution.status),
        cost_usd_per_hour=cost,
        allocation=allocation_rows(allocation),
        baselines=baselines,
        savings_vs_best_single_type=1 - cost / min(costs) if costs and min(costs) > 0 else None,
        routing=routing_rows(problem, allocation),
        predicted=[],
        forbidden=[],
        solver=Solver(
            name="HiGHS",
            status=str(solution.status),
            gap=solution.gap,
            bound_usd_per_hour=solution.bound_usd_per_hour,
            variables=solution.variables,
            constraints=solution.constraints,
        ),
        provenance=weakest(sources),
        service=service,
        model=None,
        model_source="",
        slo=None,
        workload=None,
    )


def _baselines(problem: Problem) -> list[Baseline]:
    """The cheapest fleet of each GPU type alone, under the same limits."""
    rows = []
    for gpu in dict.fromkeys(column.point.gpu for column in problem.columns):
        try:
            allocation = solve(only_gpu(problem, gpu)).allocation
        except Infeasible as error:
            rows.append(Baseline(gpu=gpu, count=None, cost_usd_per_hour=None, reason=error.what))
            continue
        count = sum(pool.count * pool.offer.gpu_count for pool in allocation.pools)
        rows.append(Baseline(gpu=gpu, count=count, cost_usd_per_hour=allocation.usd_per_hour))
    return rows
