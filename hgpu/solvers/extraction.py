"""From the values of a solved program to an allocation."""

import numpy as np

from hgpu.core.allocation import Allocation, Pool, Rental
from hgpu.core.offer import Market, Offer
from hgpu.solvers.highs import Answer
from hgpu.solvers.levelling import levelled
from hgpu.solvers.matrix import Floats
from hgpu.solvers.model import Layout
from hgpu.solvers.packing import machines_of
from hgpu.solvers.problem import Problem

SHARE_FLOOR = 1e-9  # smaller shares are the solver's rounding


def allocation_of(problem: Problem, layout: Layout, answer: Answer) -> Allocation:
    """Return the fleet of an answer, its load levelled, and who serves what."""
    engines, machines = _counts(layout, answer)
    shares = levelled(problem, engines, _shares(problem, layout, answer))
    used = [c for c, count in enumerate(engines) if count]
    matrix = []
    for b, rate in enumerate(problem.rates_rps):
        row = np.where(shares[b] > SHARE_FLOOR, shares[b], 0.0)[used]
        matrix.append(tuple((row / row.sum()).tolist()) if rate > 0 else tuple(0.0 for _ in used))
    counts = (engines, machines)
    pools = [_pool(problem, layout, c, counts, [row[i] for row in matrix]) for i, c in enumerate(used)]
    rentals = [
        Rental(group.offer, count, problem.columns[group.columns[0]].service)
        for group, count in zip(layout.groups, machines, strict=True)
        if count
    ]
    idle = _idle(layout, machines)
    return Allocation(tuple(pools), tuple(matrix), tuple(rentals), idle)


def _counts(layout: Layout, answer: Answer) -> tuple[list[int], list[int]]:
    """Engines of each column, and machines of each group."""
    engines = [0] * sum(len(group.columns) for group in layout.groups)
    machines = []
    for group in layout.groups:
        for c, (variable, count) in zip(group.columns, group.engines, strict=True):
            engines[c] = count * round(float(answer.values[variable]))
        machines.append(sum(round(float(answer.values[v])) for v in group.machines))
    return engines, machines


def _shares(problem: Problem, layout: Layout, answer: Answer) -> Floats:
    shares = np.zeros((len(problem.rates_rps), len(problem.columns)))
    matrix = layout.matrix
    shares[matrix.share_buckets, matrix.share_columns] = answer.values[matrix.shares]
    return shares


def _pool(
    problem: Problem, layout: Layout, c: int, counts: tuple[list[int], list[int]], shares: list[float]
) -> Pool:
    engines, machines = counts
    column = problem.columns[c]
    g = next(number for number, group in enumerate(layout.groups) if c in group.columns)
    group = layout.groups[g]
    hosts = machines_of(
        [(problem.columns[k].point.tp, engines[k]) for k in group.columns], column.offer.gpu_count
    )
    gpus = sum(problem.columns[k].point.tp * engines[k] for k in group.columns)
    load = sum(
        rate * share / column.capacity_rps[b]
        for b, (rate, share) in enumerate(zip(problem.rates_rps, shares, strict=True))
        if share
    )
    return Pool(
        column.offer,
        column.point,
        hosts[group.columns.index(c)],
        engines[c],
        load,
        machines[g] * column.offer.usd_per_hour * column.point.tp * engines[c] / gpus,
        column.service,
    )


def _idle(layout: Layout, machines: list[int]) -> float:
    """Price of the reserved machines that nothing runs on."""
    used: dict[Offer, int] = {}
    for group, count in zip(layout.groups, machines, strict=True):
        used[group.offer] = used.get(group.offer, 0) + count
    return sum(
        offer.usd_per_hour * ((offer.available or 0) - count)
        for offer, count in used.items()
        if offer.market is Market.RESERVED
    )
