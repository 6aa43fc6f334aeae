"""Buckets that a router can't tell apart: they are shared out alike, as if they were one.

A router sees a prompt, not how long its answer will be. Buckets of one input are therefore one row of the
program. A pool that takes the share x of it takes x of each of its buckets, and spends on them

    x · Σ_b rate_b/capacity_b  =  x · rate/capacity
    where rate = Σ_b rate_b and capacity = rate / Σ_b (rate_b/capacity_b)

A pool that can't serve one of them can serve none of them. Mélange (arXiv 2404.14527, section 5) gives each
(input, output) bucket shares of its own, which a router that knows both lengths could follow.
"""

from collections.abc import Sequence
from dataclasses import replace

from hgpu.core.allocation import Allocation
from hgpu.solvers.problem import Problem


def merged(problem: Problem) -> Problem:
    """Return the problem with one bucket a group."""
    if not problem.alike:
        return problem
    groups = _groups(problem)
    rates = problem.rates_rps
    shares = problem.preemptible_shares
    columns = tuple(
        replace(column, capacity_rps=tuple(_capacity(rates, column.capacity_rps, g) for g in groups.values()))
        for column in problem.columns
    )
    return replace(
        problem,
        bucket_names=tuple(groups),
        rates_rps=tuple(sum(rates[b] for b in group) for group in groups.values()),
        columns=columns,
        preemptible_shares=tuple(min(shares[b] for b in group) for group in groups.values() if shares),
        alike=(),
    )


def unmerged(allocation: Allocation, problem: Problem) -> Allocation:
    """Return an allocation of the merged problem with a row for each bucket of the whole one."""
    if not problem.alike or not allocation.shares:
        return allocation
    row_of = dict(zip(_groups(problem), allocation.shares, strict=True))
    return replace(allocation, shares=tuple(row_of[name] for name in problem.alike))


def _groups(problem: Problem) -> dict[str, list[int]]:
    """Return the buckets of each group, by number."""
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(problem.alike):
        groups.setdefault(name, []).append(number)
    return groups


def _capacity(rates: Sequence[float], capacities: Sequence[float], group: Sequence[int]) -> float:
    used = [b for b in group if rates[b] > 0]
    if not used:
        return min(capacities[b] for b in group)
    if any(capacities[b] <= 0 for b in used):
        return 0.0
    return sum(rates[b] for b in used) / sum(rates[b] / capacities[b] for b in used)
