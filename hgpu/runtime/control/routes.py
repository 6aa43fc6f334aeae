"""Who serves what while a fleet changes: the load, levelled over the engines that are ready."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hgpu.core.workload import Bucket
from hgpu.runtime.control.pools import ControlledPool
from hgpu.simulator.routing import Routing
from hgpu.solvers.alike import merged
from hgpu.solvers.demand import Demand
from hgpu.solvers.levelling import levelled
from hgpu.solvers.matrix import Floats, Ints
from hgpu.solvers.problem import Problem

NOBODY_CAN = 0.5  # of a bucket's requests: shares make up 1, or 0 where no ready pool serves it


def ready_routes(
    problem: Problem,
    demand: Demand,
    pools: Sequence[ControlledPool],
    ready: Sequence[int],
    cells: Sequence[Bucket],
) -> Routing:
    """Return the shares of every cell, so that no pool with engines that are ready is busier than it must be.

    The problem is the demand's; cells that it has no bucket of are nobody's so far. What no ready pool
    serves within the objectives goes to the ready pool with the largest cache: late is better than never.
    Where nobody is ready, all goes to the first pool.
    """
    row_of = _rows(problem, pools, ready)
    last = _alone(_last_resort(demand, pools, ready), len(pools))
    service = demand.service
    known: dict[tuple[int, int, int | None], tuple[float, ...] | None] = {}
    number = 0
    for tier in range(len(service.tiers)):
        for bucket in service.workload.buckets:
            row = row_of[problem.alike[number]]
            known[tier, bucket.input_high, bucket.output_high] = row
            if service.routed_by_input:
                known[tier, bucket.input_high, None] = row
            number += 1
    table = tuple(
        known.get((tier, cell.input_high, cell.output_high))
        or known.get((tier, cell.input_high, None))
        or last
        for tier in range(len(service.tiers))
        for cell in cells
    )
    return Routing(tuple(cells), table, tuple(tier.share for tier in service.tiers))


def _rows(
    problem: Problem, pools: Sequence[ControlledPool], ready: Sequence[int]
) -> dict[str, tuple[float, ...] | None]:
    """Return the pools' shares of each group of buckets that are shared out alike; None where nobody can."""
    columns = {(c.offer.name, c.offer.region, c.point): n for n, c in enumerate(problem.columns)}
    place = [columns.get((p.offer.name, p.offer.region, p.point)) for p in pools]
    counts = np.zeros(len(problem.columns), np.int64)
    for column, count in zip(place, ready, strict=True):
        if column is not None:
            counts[column] = count
    grouped = merged(problem)
    rows: dict[str, tuple[float, ...] | None] = {}
    for name, shares in zip(grouped.bucket_names, _levelled(grouped, counts), strict=True):
        row = [0.0 if column is None else float(shares[column]) for column in place]
        whole = sum(row)
        rows[name] = tuple(share / whole for share in row) if whole > NOBODY_CAN else None
    return rows


def _levelled(problem: Problem, counts: Ints) -> Floats:
    """Shares (rows × columns) over the columns with engines; none for rows that they can't serve."""
    capacity = np.array([column.capacity_rps for column in problem.columns]).T
    able = (capacity > 0) & (counts > 0)
    first = np.zeros_like(capacity)
    served = np.flatnonzero(able.any(1))
    first[served, able[served].argmax(1)] = 1.0
    rates = tuple(rate if able[number].any() else 0.0 for number, rate in enumerate(problem.rates_rps))
    return levelled(replace(problem, rates_rps=rates), counts.tolist(), first)


def _last_resort(demand: Demand, pools: Sequence[ControlledPool], ready: Sequence[int]) -> int:
    models = demand.candidates.latency
    there = [number for number, count in enumerate(ready) if count] or [0]
    return max(there, key=lambda number: models[pools[number].point].kv_capacity_tokens)


def _alone(number: int, pools: int) -> tuple[float, ...]:
    return tuple(float(other == number) for other in range(pools))
