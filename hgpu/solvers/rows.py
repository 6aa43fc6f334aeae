"""An allocation as rows of a plan's payload."""

import re
from collections.abc import Sequence

from hgpu.artifacts.payloads.plan import AllocationRow, RoutingRow
from hgpu.core.allocation import Allocation
from hgpu.core.operating_point import names_of
from hgpu.core.phases import Phases
from hgpu.solvers.demand import Row
from hgpu.solvers.problem import Problem


def pool_names(allocation: Allocation) -> list[str]:
    """Return a short, unique, path-safe name for each pool: GPU type, budget and offer where needed."""
    names = names_of(pool.point for pool in allocation.pools)
    short = [re.sub(r"[^a-z0-9.]+", "-", names[pool.point].lower()) for pool in allocation.pools]
    long = [
        re.sub(r"[^a-z0-9.]+", "-", f"{names[pool.point]}-{pool.offer.name}".lower())
        for pool in allocation.pools
    ]
    return [
        s if short.count(s) == 1 else f"{name}-{number}"
        for number, (s, name) in enumerate(zip(short, long, strict=True))
    ]


def allocation_rows(
    allocation: Allocation, factors: Sequence[float], phases: Sequence[Phases | None]
) -> list[AllocationRow]:
    """Return a row a pool; `factors` are the pools' safety factors, `phases` what their schedulers hear."""
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
            count=pool.machines,
            engines=pool.engines,
            usd_per_hour=pool.usd_per_hour,
            utilization=pool.utilization,
            price_date=pool.offer.price_date,
            price_source=pool.offer.source,
            point=pool.point,
            safety_factor=factor,
            phases=told,
        )
        for name, pool, factor, told in zip(
            pool_names(allocation), allocation.pools, factors, phases, strict=True
        )
    ]


def routing_rows(rows: Sequence[Row], allocation: Allocation) -> list[RoutingRow]:
    """Return a row a bucket, with the share that each pool serves."""
    names = pool_names(allocation)
    return [
        RoutingRow(
            bucket=row.bucket.name,
            tier=row.tier.name,
            input_low=row.bucket.input_low,
            input_high=row.bucket.input_high,
            output_low=row.bucket.output_low,
            output_high=row.bucket.output_high,
            rate_rps=row.rate_rps,
            shares=_shares(names, shares),
        )
        for row, shares in zip(rows, allocation.shares, strict=True)
    ]


def unbounded_rows(problem: Problem, allocation: Allocation) -> list[RoutingRow]:
    """Return a row a bucket of which only the name is known."""
    names = pool_names(allocation)
    return [
        RoutingRow(
            bucket=bucket,
            tier="",
            input_low=None,
            input_high=None,
            output_low=None,
            output_high=None,
            rate_rps=rate,
            shares=_shares(names, shares),
        )
        for bucket, rate, shares in zip(
            problem.bucket_names, problem.rates_rps, allocation.shares, strict=True
        )
    ]


def fleet_text(allocation: Allocation) -> str:
    """Return the fleet in a few words, as `2× L4 + 1× H100-SXM tp2`; the counts are of engines."""
    engines: dict[str, int] = {}
    names = names_of(pool.point for pool in allocation.pools)
    for pool in allocation.pools:
        name = names[pool.point]
        engines[name] = engines.get(name, 0) + pool.engines
    return " + ".join(f"{count}× {name}" for name, count in engines.items())


def _shares(names: Sequence[str], shares: Sequence[float]) -> dict[str, float]:
    return {name: share for name, share in zip(names, shares, strict=True) if share > 0}
