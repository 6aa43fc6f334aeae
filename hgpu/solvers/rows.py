"""An allocation as rows of a plan's payload."""

import re

from hgpu.artifacts.payloads.plan import AllocationRow, RoutingRow
from hgpu.core.allocation import Allocation
from hgpu.solvers.allocation import Problem


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


def allocation_rows(allocation: Allocation) -> list[AllocationRow]:
    """Return a row a pool."""
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


def routing_rows(problem: Problem, allocation: Allocation) -> list[RoutingRow]:
    """Return a row a bucket, with the share that each pool serves."""
    names = pool_names(allocation)
    return [
        RoutingRow(
            bucket=bucket,
            rate_rps=rate,
            shares={name: share for name, share in zip(names, row, strict=True) if share > 0},
        )
        for bucket, rate, row in zip(problem.bucket_names, problem.rates_rps, allocation.shares, strict=True)
    ]
