"""The fleet that a load asks for: the allocation, solved again from what runs now."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from hgpu.core.errors import HgpuError, Infeasible
from hgpu.runtime.control.pools import ControlledPool
from hgpu.solvers.allocation import solve, with_columns
from hgpu.solvers.demand import Change, Demand, problem_of
from hgpu.solvers.problem import Limit, Problem, Solution, Unit

ALL_THE_MONEY = 1e9  # USD/h: a budget that never binds, so that caps alone say how much can be served


class Outcome(StrEnum):
    """What came of a decision."""

    SOLVED = "solved"
    CAPPED = "capped"  # caps or a budget allow less than the load asks for: as much as they allow
    KEPT = "kept"  # no allocation: the fleet stays as it is


@dataclass(frozen=True, slots=True)
class Solving:
    """How to solve: what a start or stop counts for, the gap, and the seconds that a solve may take."""

    change_usd_per_hour: float = 0.05
    budget_usd_per_hour: float | None = None
    gap: float = 1e-3
    time_limit_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Goal:
    """Engines of each pool, the part of the load that they carry, and the reason where it isn't all."""

    engines: tuple[int, ...]
    outcome: Outcome
    served: float = 1.0
    reason: str = ""


def goal_of(
    demand: Demand,
    pools: Sequence[ControlledPool],
    now: Sequence[int],
    solving: Solving,
) -> Goal:
    """Return the cheapest engines for a demand, changes counted; what caps allow where that is less.

    `now` are the engines of each pool that run or start. Where there is no allocation at all, or the solver
    fails, that is the goal, with the reason.
    """
    budget = solving.budget_usd_per_hour
    try:
        problem = problem_at(demand, pools, now, solving)
        try:
            return Goal(_engines(_afforded(problem, budget), pools), Outcome.SOLVED)
        except Infeasible as error:
            there_is = ALL_THE_MONEY if budget is None else budget
            most = solve(replace(problem, budget_usd_per_hour=there_is))
            return Goal(_engines(most, pools), Outcome.CAPPED, most.served, _words(error))
    except HgpuError as error:
        return Goal(tuple(now), Outcome.KEPT, 0.0, _words(error))


def _afforded(problem: Problem, budget_usd_per_hour: float | None) -> Solution:
    """Return the cheapest allocation; raise Infeasible where it is beyond the budget."""
    solution = solve(problem)
    cost = solution.allocation.usd_per_hour
    if budget_usd_per_hour is not None and cost > budget_usd_per_hour + 1e-9:
        raise Infeasible(
            f"the load asks for {cost:.2f} USD/h", f"the budget is {budget_usd_per_hour:g} USD/h"
        )
    return solution


def _words(error: HgpuError) -> str:
    return "; ".join(part for part in (error.what, error.why) if part)


def problem_at(
    demand: Demand,
    pools: Sequence[ControlledPool],
    now: Sequence[int],
    solving: Solving,
) -> Problem:
    """Return the problem of a demand with a column for each pool, in their order, and their caps.

    Raises Infeasible for a bucket that no pool can serve.
    """
    running = {pool.place: count for pool, count in zip(pools, now, strict=True) if count}
    change = Change(running, solving.change_usd_per_hour)
    problem = problem_of([demand], solving.gap, solving.time_limit_s, change)
    places = [("", c.offer.name, c.offer.region, c.point) for c in problem.columns]
    mine = [pool for pool in pools if pool.place in places]
    problem = with_columns(problem, [places.index(pool.place) for pool in mine])
    caps = tuple(
        Limit(f"max {pool.name}: {pool.most}", {number: 1.0}, pool.most, unit=Unit.ENGINES)
        for number, pool in enumerate(mine)
        if pool.most is not None
    )
    return replace(problem, limits=problem.limits + caps)


def _engines(solution: Solution, pools: Sequence[ControlledPool]) -> tuple[int, ...]:
    counts = {
        ("", pool.offer.name, pool.offer.region, pool.point): pool.engines
        for pool in solution.allocation.pools
    }
    return tuple(counts.get(pool.place, 0) for pool in pools)
