"""From services and latency models to plans: the solve, baselines, predictions and routing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hgpu.artifacts.payloads.plan import AllocationRow, Baseline, PlanPayload, RoutingRow, Solver
from hgpu.core.allocation import Allocation
from hgpu.core.errors import HgpuError, Infeasible
from hgpu.core.provenance import Provenance, weakest
from hgpu.solvers.allocation import all_resident, only_gpu, solve
from hgpu.solvers.demand import Change, Demand, problem_of
from hgpu.solvers.predict import predict, told
from hgpu.solvers.problem import Problem, Solution
from hgpu.solvers.reasons import forbidden
from hgpu.solvers.rows import allocation_rows, pool_names, routing_rows, unbounded_rows

OFFLOADED_ONLY = "only with experts in host memory"


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan's payload, the allocation that it renders, and the seconds that it took."""

    payload: PlanPayload
    allocation: Allocation
    timings: dict[str, float]


def make_plans(
    demands: Sequence[Demand], gap: float = 0.0, time_limit_s: float = 60.0, change: Change | None = None
) -> list[Planned]:
    """Return a plan for each service; together they cost the least within the limits that they share.

    Raises Infeasible where a bucket can't be served, or the limits can't hold, with the reason
    and the nearest objective or limit that could be met.
    """
    problem = problem_of(demands, gap, time_limit_s, change)
    solution = solve(problem)
    _check_mass(demands, problem, solution)
    return [_planned(demand, problem, solution) for demand in demands]


def plan_of_problem(problem: Problem, service: str) -> Planned:
    """Return the plan of a problem whose capacities are given instead of derived (Mélange files)."""
    solution = solve(problem)
    routing = unbounded_rows(problem, solution.allocation)
    allocation = solution.allocation
    nothing = [None] * len(allocation.pools)
    pools = allocation_rows(allocation, [1.0] * len(nothing), nothing)
    payload = _payload(solution, allocation, pools, _baselines(problem), routing, service)
    return Planned(payload, solution.allocation, _timings(solution))


def _planned(demand: Demand, problem: Problem, solution: Solution) -> Planned:
    service, candidates = demand.service, demand.candidates
    allocation = _part(demand, problem, solution)
    rows = [replace(row, rate_rps=row.rate_rps * solution.served) for row in demand.rows]
    predicted = [
        predict(demand, pool, name, rows, [shares[number] for shares in allocation.shares])
        for number, (pool, name) in enumerate(zip(allocation.pools, pool_names(allocation), strict=True))
    ]
    alone = replace(problem_of([demand]), budget_usd_per_hour=None)
    alone = replace(alone, rates_rps=tuple(row.rate_rps for row in rows), gap=problem.gap)
    factors = [candidates.factor(pool.point) for pool in allocation.pools]
    pools = allocation_rows(allocation, factors, [told(demand, pool) for pool in allocation.pools])
    routing = routing_rows(rows, allocation)
    payload = _payload(solution, allocation, pools, _baselines(alone), routing, service.name)
    tiers = [tier for tier in service.tiers if tier.name]
    update = {
        "predicted": predicted,
        "forbidden": forbidden(service, demand.served, candidates.refused),
        "model": service.model,
        "model_source": service.model_source,
        "slo": None if tiers else service.tiers[0].slo,
        "tiers": tiers,
        "workload": service.workload,
        "confidence": candidates.confidence,
        "provenance": weakest(row.provenance for row in predicted),
    }
    return Planned(payload.model_copy(update=update), allocation, _timings(solution))


def _check_mass(demands: Sequence[Demand], problem: Problem, solution: Solution) -> None:
    """Check that every request of the services is somebody's: none may vanish between buckets and pools."""
    asked = sum(demand.service.workload.rate_rps for demand in demands)
    rows = zip(problem.rates_rps, solution.allocation.shares, strict=True)
    served = sum(rate * sum(shares) for rate, shares in rows)
    if abs(served - asked) > 1e-6 * asked:
        raise HgpuError(
            f"the plan serves {served:g} of {asked:g} requests/s",
            "shares of a bucket were lost on the way to the pools",
            "report this with the spec: it is a mistake in hgpu",
        )


def _part(demand: Demand, problem: Problem, solution: Solution) -> Allocation:
    """The pools and rows of one service."""
    whole = solution.allocation
    mine = [number for number, pool in enumerate(whole.pools) if pool.service == demand.key]
    names = {row.name for row in demand.rows}
    shares = [
        tuple(row[number] for number in mine)
        for name, row in zip(problem.bucket_names, whole.shares, strict=True)
        if name in names
    ]
    if len(names) == len(problem.bucket_names):
        return whole
    rentals = tuple(rental for rental in whole.rentals if rental.service == demand.key)
    return Allocation(tuple(whole.pools[number] for number in mine), tuple(shares), rentals)


def _payload(
    solution: Solution,
    allocation: Allocation,
    pools: list[AllocationRow],
    baselines: list[Baseline],
    routing: list[RoutingRow],
    service: str,
) -> PlanPayload:
    costs = [row.cost_usd_per_hour for row in baselines if row.cost_usd_per_hour is not None]
    cost = allocation.usd_per_hour
    return PlanPayload(
        status=str(solution.status),
        cost_usd_per_hour=cost,
        idle_usd_per_hour=allocation.idle_usd_per_hour,
        served=solution.served,
        confidence=0.5,
        allocation=pools,
        baselines=baselines,
        savings_vs_best_single_type=1 - cost / min(costs) if costs and min(costs) > 0 else None,
        routing=routing,
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
        provenance=Provenance.MEASURED,
        service=service,
        model=None,
        model_source="",
        slo=None,
        tiers=[],
        workload=None,
    )


def _baselines(problem: Problem) -> list[Baseline]:
    """The cheapest fleet of each GPU type alone with all weights on its GPUs, under the same limits."""
    rows = []
    resident = all_resident(problem)
    for gpu in dict.fromkeys(column.point.gpu for column in problem.columns):
        alone = only_gpu(resident, gpu)
        if not alone.columns:
            rows.append(Baseline(gpu=gpu, count=None, cost_usd_per_hour=None, reason=OFFLOADED_ONLY))
            continue
        try:
            allocation = solve(alone).allocation
        except Infeasible as error:
            rows.append(Baseline(gpu=gpu, count=None, cost_usd_per_hour=None, reason=error.what))
            continue
        count = sum(rental.machines * rental.offer.gpu_count for rental in allocation.rentals)
        rows.append(Baseline(gpu=gpu, count=count, cost_usd_per_hour=allocation.usd_per_hour))
    return rows


def _timings(solution: Solution) -> dict[str, float]:
    return {"build_s": solution.build_s, "solve_s": solution.solve_s}
