"""One order for every problem, so that the order in which things were given never matters."""

from dataclasses import replace

from hgpu.core.allocation import Allocation
from hgpu.solvers.problem import Problem


def sorted_problem(problem: Problem) -> tuple[Problem, list[int]]:
    """Return the problem with buckets and columns sorted, and where each bucket stood before."""
    buckets = sorted(range(len(problem.bucket_names)), key=lambda b: (problem.bucket_names[b], b))
    columns = sorted(range(len(problem.columns)), key=lambda c: (problem.columns[c].key, c))
    place = {old: new for new, old in enumerate(columns)}
    limits = [
        replace(
            limit, weights={place[c]: limit.weights[c] for c in sorted(limit.weights, key=place.__getitem__)}
        )
        for limit in sorted(problem.limits, key=lambda limit: limit.name)
    ]
    shares = problem.preemptible_shares
    turned = replace(
        problem,
        bucket_names=tuple(problem.bucket_names[b] for b in buckets),
        rates_rps=tuple(problem.rates_rps[b] for b in buckets),
        columns=tuple(
            replace(column, capacity_rps=tuple(column.capacity_rps[b] for b in buckets))
            for column in (problem.columns[c] for c in columns)
        ),
        limits=tuple(limits),
        preemptible_shares=tuple(shares[b] for b in buckets if shares),
        running={place[c]: count for c, count in problem.running.items()},
    )
    return turned, buckets


def reordered(allocation: Allocation, buckets: list[int]) -> Allocation:
    """Return an allocation of the sorted problem with its buckets in their former order."""
    if not allocation.shares:
        return allocation
    shares: list[tuple[float, ...]] = [()] * len(buckets)
    for new, old in enumerate(buckets):
        shares[old] = allocation.shares[new]
    return replace(allocation, shares=tuple(shares))
