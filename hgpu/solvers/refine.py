"""Capacities refined by simulation, only where a plan rests on them.

The closed forms price thousands of (bucket, operating point) pairs in a moment; a plan uses a few dozen of
them. Those are simulated, and the plan is made again: it may then lean on pairs that the closed form
flatters, which are simulated next, until every pair that the plan uses has been. What was simulated once
is kept on disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hgpu.artifacts.memo import Memo
from hgpu.core.operating_point import OperatingPoint
from hgpu.latency.capacity import Capacity
from hgpu.latency.confidence import slower
from hgpu.simulator.capacity import MEMO, Progress, refined_all
from hgpu.solvers.allocation import solve
from hgpu.solvers.demand import Change, Demand, problem_of

ROUNDS = 12
Pair = tuple[str, OperatingPoint, int]  # tier, point, number of the bucket


@dataclass(slots=True)
class Refiner:
    """Refines the capacities of services that are planned together."""

    demands: list[Demand]
    memo: Memo
    progress: Progress
    gap: float = 0.0
    time_limit_s: float = 60.0
    change: Change | None = None

    def refine(self) -> list[Demand]:
        """Return the demands with every capacity refined that their cheapest plan uses.

        Raises Infeasible where refined capacities leave a bucket, or the limits, without a plan.
        """
        done: list[set[Pair]] = [set() for _ in self.demands]
        for _ in range(ROUNDS):
            used = self._used()
            new = [sorted(pairs - seen, key=str) for pairs, seen in zip(used, done, strict=True)]
            if not any(new):
                break
            for number, pairs in enumerate(new):
                self.demands[number] = self._refined(self.demands[number], pairs)
                done[number] |= set(pairs)
        return self.demands

    def _used(self) -> list[set[Pair]]:
        """The pairs that each service's part of the cheapest plan has a share in."""
        problem = problem_of(self.demands, self.gap, self.time_limit_s, self.change)
        allocation = solve(problem).allocation
        used: list[set[Pair]] = []
        first = 0
        for demand in self.demands:
            rows = allocation.shares[first : first + len(demand.rows)]
            first += len(rows)
            buckets = len(demand.service.workload.buckets)
            used.append(
                {
                    (demand.rows[number].tier.name, pool.point, number % buckets)
                    for number, row in enumerate(rows)
                    for pool, share in zip(allocation.pools, row, strict=True)
                    if share > 0
                }
            )
        return used

    def _refined(self, demand: Demand, pairs: Sequence[Pair]) -> Demand:
        served = dict(demand.served)
        slos = {tier.name: tier.slo for tier in demand.service.tiers}
        for tier, point in dict.fromkeys((tier, point) for tier, point, _ in pairs):
            numbers = [number for t, p, number in pairs if (t, p) == (tier, point)]
            starts = [(demand.service.workload.buckets[n], served[tier, point][n]) for n in numbers]
            latency = slower(demand.candidates.latency[point], demand.candidates.factor(point))
            found = refined_all(latency, point.engine, starts, slos[tier], self.memo, self.progress)
            row: list[Capacity] = list(served[tier, point])
            for number, capacity in zip(numbers, found, strict=True):
                row[number] = capacity
            served[tier, point] = tuple(row)
        return replace(demand, known=served)


def memo_under(root: Path) -> Memo:
    """Return where refined capacities are kept under a folder of artifacts."""
    return Memo(root.joinpath(*MEMO))
