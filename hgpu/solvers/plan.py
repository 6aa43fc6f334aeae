"""From a service and latency models to the plan: columns, the solve, its baselines and routing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hgpu.artifacts.payloads.plan import (
    AllocationRow,
    Baseline,
    Forbidden,
    PlanPayload,
    Prediction,
    RoutingRow,
    Solver,
)
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.allocation import Allocation, Pool
from hgpu.core.errors import Infeasible, UnknownName
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.provenance import Provenance, weakest
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Workload
from hgpu.latency.capacity import Capacity, capacities, lengths_of, percentiles
from hgpu.latency.queueing import steady_state
from hgpu.solvers.allocation import Column, Limit, Problem, Solution, only_gpu, solve
from hgpu.specs.service import Service

CPU_CORES = "cpu_cores"


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
    _check_buckets(service, served, candidates.refused)
    problem = _problem(service, served, gap, time_limit_s)
    solution = solve(problem)
    names = pool_names(solution.allocation)
    forbidden = _forbidden(workload, served, candidates.refused)
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
            "forbidden": forbidden,
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


def pool_names(allocation: Allocation) -> list[str]:
    """Return a short, unique, path-safe name for each pool: GPU type, and offer where needed."""
    short = [re.sub(r"[^a-z0-9.]+", "-", pool.point.name.lower()) for pool in allocation.pools]
    long = [
        re.sub(r"[^a-z0-9.]+", "-", f"{pool.point.name}-{pool.offer.name}".lower())
        for pool in allocation.pools
    ]
    return [
        s if short.count(s) == 1 else f"{name}-{number}"
        for number, (s, name) in enumerate(zip(short, long, strict=True))
    ]


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
        tuple(_limits(service, columns)),
        gap,
        time_limit_s,
    )


def _limits(service: Service, columns: Sequence[Column]) -> list[Limit]:
    limits = [_limit(name, at_most, service, columns) for name, at_most in service.limits.items()]
    for offer in service.offers:
        if offer.available is not None:
            mine = {c: 1.0 for c, column in enumerate(columns) if column.offer == offer}
            limits.append(Limit(f"{offer.name} available: {offer.available}", mine, at_most=offer.available))
    if service.min_engines > 1:
        engines = {c: float(column.engines_per_machine) for c, column in enumerate(columns)}
        limits.append(Limit(f"min_engines: {service.min_engines}", engines, at_least=service.min_engines))
    return limits


def _limit(name: str, at_most: int, service: Service, columns: Sequence[Column]) -> Limit:
    """A limit on cores, on the GPUs of a type, or on the machines of an offer or a cloud."""
    label = f"{name}: {at_most}"
    if name == CPU_CORES:
        cores = {c: float(resolve_gpu(column.offer.gpu).cores) for c, column in enumerate(columns)}
        return Limit(label, cores, at_most)
    known = {offer.name for offer in service.offers} | {offer.cloud for offer in service.offers}
    if name in known:
        return Limit(
            label,
            {c: 1.0 for c, col in enumerate(columns) if name in (col.offer.name, col.offer.cloud)},
            at_most,
        )
    gpus = {point.gpu for point in service.points}
    try:
        gpu = resolve_gpu(name).name
    except UnknownName as error:
        raise UnknownName("limit", name, known | gpus | {CPU_CORES}) from error
    return Limit(
        label,
        {c: float(col.offer.gpu_count) for c, col in enumerate(columns) if col.offer.gpu == gpu},
        at_most,
    )


def _check_buckets(
    service: Service,
    served: Mapping[OperatingPoint, tuple[Capacity, ...]],
    refused: Mapping[OperatingPoint, str],
) -> None:
    """Raise Infeasible for the first bucket that no rentable point can serve."""
    rentable = {offer.gpu for offer in service.offers}
    for point in service.points:
        if point.gpu not in rentable and not any(p.gpu in rentable for p in service.points):
            raise Infeasible(
                f"nothing offers {', '.join(sorted({p.gpu for p in service.points}))}",
                "no offer of the price book has these GPU types in the chosen clouds, regions and markets",
                "widen offers.clouds, offers.regions or offers.markets, or give a price book of your own",
            )
    for number, bucket in enumerate(service.workload.buckets):
        rows = {point: capacity[number] for point, capacity in served.items() if point.gpu in rentable}
        if any(capacity.rate_rps > 0 for capacity in rows.values()):
            continue
        reasons = [f"{point.name}: {capacity.reason}" for point, capacity in rows.items()]
        reasons += [f"{point.name}: {why}" for point, why in refused.items()]
        raise Infeasible(
            f"no GPU type serves requests with {bucket.name} tokens within the objectives",
            "; ".join(reasons),
            _relaxation(service, rows),
        )


def _relaxation(service: Service, rows: Mapping[OperatingPoint, Capacity]) -> str:
    """Name the smallest objective that some point could meet with no other load."""
    if not rows:
        return "allow larger GPUs or a larger tensor_parallel, or a smaller dtype"
    slo, hints = service.slo, []
    if slo.tpot:
        point = min(rows, key=lambda p: rows[p].lone_tpot_s)
        if rows[point].lone_tpot_s > slo.tpot.limit_s:
            hints.append(f"slo.tpot_ms above {rows[point].lone_tpot_s * 1e3:.1f} ({point.name})")
    if slo.ttft:
        point = min(rows, key=lambda p: rows[p].lone_ttft_s)
        if rows[point].lone_ttft_s > slo.ttft.limit_s:
            hints.append(f"slo.ttft_ms above {rows[point].lone_ttft_s * 1e3:.1f} ({point.name})")
    nearest = f"set {' and '.join(hints)}, or " if hints else ""
    return f"{nearest}allow faster GPUs, a larger tensor_parallel, or a larger engine.max_model_len"


def _forbidden(
    workload: Workload,
    served: Mapping[OperatingPoint, tuple[Capacity, ...]],
    refused: Mapping[OperatingPoint, str],
) -> list[Forbidden]:
    rows = [
        Forbidden(point=point.name, buckets=len(workload.buckets), reason=why)
        for point, why in refused.items()
    ]
    for point, row in served.items():
        reasons = [capacity.reason for capacity in row if capacity.reason]
        if reasons:
            rows.append(Forbidden(point=point.name, buckets=len(reasons), reason=reasons[0]))
    return rows


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
        allocation=_rows(allocation),
        baselines=baselines,
        savings_vs_best_single_type=1 - cost / min(costs) if costs and min(costs) > 0 else None,
        routing=_routing(problem, allocation),
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


def _rows(allocation: Allocation) -> list[AllocationRow]:
    return [
        AllocationRow(
            pool=name,
            offer=pool.offer.name,
            region=pool.offer.region,
            market=str(pool.offer.market),
            gpu=pool.point.gpu,
            gpus_per_machine=pool.offer.gpu_count,
            tp=pool.point.tp,
            mode=str(pool.point.mode),
            count=pool.count,
            engines=pool.engines,
            usd_per_hour=pool.usd_per_hour,
            utilization=pool.utilization,
            price_date=pool.offer.price_date,
            price_source=pool.offer.source,
            point=pool.point,
        )
        for name, pool in zip(pool_names(allocation), allocation.pools, strict=True)
    ]


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


def _routing(problem: Problem, allocation: Allocation) -> list[RoutingRow]:
    names = pool_names(allocation)
    return [
        RoutingRow(
            bucket=bucket,
            rate_rps=rate,
            shares={name: share for name, share in zip(names, row, strict=True) if share > 0},
        )
        for bucket, rate, row in zip(problem.bucket_names, problem.rates_rps, allocation.shares, strict=True)
    ]
