"""Capacities refined by simulation, only where a plan rests on them.

The closed forms price thousands of (bucket, operating point) pairs in a moment; a plan uses a few dozen of
them. Those are simulated, and the plan is made again: it may then lean on pairs that the closed form
flatters, which are simulated next, until every pair that the plan uses has been. What was simulated once
is kept on disk.

Of mode `pd` the closed form knows a bound only. So a plan uses no pair of it that wasn't simulated, and none
at all where it is no cheaper than the plan without that mode, which is simpler to run.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from hgpu.artifacts.memo import Memo
from hgpu.core.errors import Infeasible
from hgpu.core.operating_point import Mode, OperatingPoint
from hgpu.latency.capacity import Capacity
from hgpu.latency.confidence import slower
from hgpu.latency.pd import phase_options
from hgpu.simulator.capacity import MEMO, Progress, refined_all
from hgpu.solvers.allocation import solve
from hgpu.solvers.demand import Change, Demand, problem_of
from hgpu.solvers.problem import Solution

ROUNDS = 12
SAME_COST = 1e-6  # of the cost: less isn't cheaper
_UNKNOWN = "mode 'pd' wasn't simulated there"
_NO_CHEAPER = "mode 'pd' makes no plan cheaper"
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
    rounds: int = ROUNDS

    def refine(self) -> list[Demand]:
        """Return the demands with every capacity refined that their cheapest plan uses.

        Raises Infeasible where refined capacities leave a bucket, or the limits, without a plan.
        """
        plain = [_without_pd(demand) for demand in self.demands]
        if plain == self.demands:
            return self._refine()
        mixed = replace(self, demands=plain)
        try:
            plain = mixed._refine()
            most_usd = mixed._solved().allocation.usd_per_hour
        except Infeasible:
            return self._refine()
        either = self._refine()
        return either if self._solved().allocation.usd_per_hour < most_usd * (1 - SAME_COST) else plain

    def _refine(self) -> list[Demand]:
        done: list[set[Pair]] = [set() for _ in self.demands]
        for _ in range(self.rounds):
            used = self._used()
            new = [sorted(pairs - seen, key=str) for pairs, seen in zip(used, done, strict=True)]
            if not any(new):
                break
            for number, pairs in enumerate(new):
                self.demands[number] = self._refined(self.demands[number], pairs)
                done[number] |= set(pairs)
        self.demands = [
            _without_bounds(demand, seen) for demand, seen in zip(self.demands, done, strict=True)
        ]
        return self.demands

    def _solved(self) -> Solution:
        return solve(problem_of(self.demands, self.gap, self.time_limit_s, self.change))

    def _used(self) -> list[set[Pair]]:
        """The pairs that each service's part of the cheapest plan has a share in."""
        allocation = self._solved().allocation
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
            phases = phase_options(point, list(slos.values()))
            found = refined_all(
                latency, point.engine, starts, slos[tier], self.memo, self.progress, phases=phases
            )
            row: list[Capacity] = list(served[tier, point])
            for number, capacity in zip(numbers, found, strict=True):
                row[number] = capacity
            served[tier, point] = tuple(row)
        return replace(demand, known=served)


def _without_pd(demand: Demand) -> Demand:
    """Return a demand that mode `pd` is no candidate of."""
    models = demand.candidates.latency
    kept = {point: model for point, model in models.items() if point.mode is not Mode.PD}
    if len(kept) in (0, len(models)):
        return demand
    gone = dict.fromkeys(models.keys() - kept.keys(), _NO_CHEAPER)
    refused = {**demand.candidates.refused, **gone}
    return replace(demand, candidates=replace(demand.candidates, latency=kept, refused=refused), known={})


def _without_bounds(demand: Demand, simulated: Set[Pair]) -> Demand:
    """Return a demand in which what was only bounded, and not simulated, counts for nothing."""
    known = {
        (tier, point): tuple(
            capacity
            if point.mode is not Mode.PD or (tier, point, number) in simulated
            else replace(capacity, rate_rps=0.0, reason=capacity.reason or _UNKNOWN)
            for number, capacity in enumerate(row)
        )
        for (tier, point), row in demand.served.items()
    }
    return replace(demand, known=known)


def memo_under(root: Path) -> Memo:
    """Return where refined capacities are kept under a folder of artifacts."""
    return Memo(root.joinpath(*MEMO))
