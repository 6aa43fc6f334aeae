"""The cheapest way for each of several jobs that share machines: one exact program.

    min  Σ cost_w · x_w                    ways w of all jobs, x_w chosen or not
    s.t. Σ_{w of j} x_w = 1                every job runs, once
         Σ_{w of j} hours_w · x_w ≤ deadline of j
         Σ_{w of j} cost_w · x_w ≤ budget of j
         Σ_w weight_w · x_w ≤ cap          for each limit and each offer's supply: jobs run at the same time

Ways are sorted before anything is built, and HiGHS runs on one thread: the same input gives the same answer.
Its tolerances are absolute. So a way that breaks a bound by itself is left out before, to the last bit, which
is all that deadlines and budgets ask; and prices are scaled: a job of a cent is chosen as exactly as one of a
million dollars.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from hgpu.core.errors import Infeasible
from hgpu.core.offer import Offer
from hgpu.solvers.highs import Outcome, minimize
from hgpu.solvers.matrix import Floats, Matrix

SCALED = 1e4  # what all jobs cost in a program at their cheapest; HiGHS takes answers within 1e-6 as equal


@dataclass(frozen=True, slots=True)
class Option:
    """One way for a job: its price, time and machines; `name` says it in words."""

    job: str
    name: str
    cost_usd: float
    hours: float
    offer: Offer
    machines: int


@dataclass(frozen=True, slots=True)
class Bound:
    """Σ weights[option] · chosen + used ≤ at_most, with the name and unit that users gave it.

    `used` is what runs beside the jobs and counts against it; options without a weight are free to be chosen.
    """

    name: str
    at_most: float
    weights: Mapping[int, float]
    unit: str = ""
    used: float = 0.0

    @property
    def text(self) -> str:
        """The bound in words."""
        beside = f", {self.used:g} of it used beside" if self.used else ""
        return f"{self.name}: {self.at_most:g}{self.unit}{beside}"

    def needed(self, options: Sequence[int]) -> float:
        """Return the value that would let options be chosen together; 0 where they take nothing of it."""
        taken = sum(self.weights.get(number, 0.0) for number in options)
        return self.used + taken if taken else 0.0

    def holds(self, options: Sequence[int]) -> bool:
        """Tell whether options may be chosen together."""
        return self.needed(options) <= self.at_most


@dataclass(frozen=True, slots=True)
class Jobs:
    """The options of all jobs, and what must hold of those chosen."""

    options: tuple[Option, ...]
    bounds: tuple[Bound, ...]

    @property
    def names(self) -> list[str]:
        """The jobs, in the order of their first option."""
        return list(dict.fromkeys(option.job for option in self.options))

    def without(self, bound: Bound) -> "Jobs":
        """Return the same jobs without a bound."""
        return replace(self, bounds=tuple(other for other in self.bounds if other is not bound))

    def others(self, chosen: Sequence[int], option: int) -> list[int]:
        """Return a choice with another option for that one's job."""
        job = self.options[option].job
        return [*(n for n in chosen if self.options[n].job != job), option]

    def holds(self, chosen: Sequence[int]) -> bool:
        """Tell whether a choice keeps all bounds."""
        return all(bound.holds(chosen) for bound in self.bounds)


@dataclass(frozen=True, slots=True)
class Chosen:
    """An option (by number) for each job, their price together, and the size of the program."""

    options: tuple[int, ...]
    cost_usd: float
    variables: int
    constraints: int


def choose(jobs: Jobs, time_limit_s: float = 60.0) -> Chosen:
    """Return the cheapest choice. Raises Infeasible naming what is in the way, and the cheapest way out."""
    found = cheapest(jobs, time_limit_s)
    if found is None:
        _raise_infeasible(jobs, time_limit_s)
    return found


def cheapest(jobs: Jobs, time_limit_s: float = 60.0) -> Chosen | None:
    """Return the cheapest choice, None where there is none."""
    return _least(jobs, [option.cost_usd for option in jobs.options], time_limit_s)


def _least(jobs: Jobs, costs: Sequence[float], time_limit_s: float) -> Chosen | None:
    """Return the choice with the least sum of `costs`, None where none keeps the bounds."""
    shared = [bound for bound in jobs.bounds if len({jobs.options[n].job for n in bound.weights}) > 1]
    able = _worth_choosing(jobs, costs, shared)
    if {jobs.options[number].job for number in able} < set(jobs.names):
        return None  # a job has nothing left
    matrix = _matrix(jobs, np.array([costs[number] for number in able]), able, shared)
    answer = minimize(matrix, 0.0, time_limit_s)
    if answer.outcome is Outcome.INFEASIBLE:
        return None
    picked = tuple(able[n] for n in np.flatnonzero(answer.values > 0.5))
    cost = sum(jobs.options[n].cost_usd for n in picked)
    return Chosen(picked, cost, matrix.variables, matrix.rows)


def _worth_choosing(jobs: Jobs, costs: Sequence[float], shared: Sequence[Bound]) -> list[int]:
    """Return the options that keep all bounds alone, of each job the cheapest of those that take as much.

    A bound of a lone job is kept by that; of options that cost the same the first stays.
    """
    best: dict[tuple[str, tuple[float, ...]], int] = {}
    for number, option in enumerate(jobs.options):
        if jobs.holds([number]):
            place = option.job, tuple(bound.weights.get(number, 0.0) for bound in shared)
            if costs[number] < costs[best.setdefault(place, number)]:
                best[place] = number
    return sorted(best.values())


def _matrix(jobs: Jobs, costs: Floats, able: Sequence[int], shared: Sequence[Bound]) -> Matrix:
    """Build the program over some options, and the bounds that several jobs share."""
    matrix = Matrix()
    by_job = {name: [n for n, o in enumerate(able) if jobs.options[o].job == name] for name in jobs.names}
    least = sum(costs[mine].min() for mine in by_job.values())
    chosen = matrix.add_variables(len(able), costs * (SCALED / least if least else 1.0), 1.0, integer=True)
    for mine in by_job.values():
        matrix.add_entries(matrix.add_rows(1, lower=1.0, upper=1.0), chosen[mine], 1.0)
    for bound in shared:
        row = matrix.add_rows(1, upper=max(0.0, bound.at_most - bound.used))
        matrix.add_entries(row, chosen, [bound.weights.get(number, 0.0) for number in able])
    return matrix


def _raise_infeasible(jobs: Jobs, time_limit_s: float) -> NoReturn:
    """Raise Infeasible: which bound alone is in the way, what it would have to be, and what that costs."""
    ways = [(found, [bound]) for bound in jobs.bounds if (found := _freed(jobs, bound, time_limit_s))]
    ways.sort(key=lambda way: (way[0].cost_usd, way[1][0].name))
    names = ", ".join(bound.text for bound in jobs.bounds)
    why = f"{' or '.join(bounds[0].name for _, bounds in ways)} alone stands in the way ({names})"
    if not ways:
        found = cheapest(replace(jobs, bounds=()), time_limit_s)
        assert found is not None  # each job has an option
        ways = [(found, [bound for bound in jobs.bounds if not bound.holds(found.options)])]
        why = f"several of them together forbid it ({names})"
    fixes = ", or ".join(_relaxed(jobs, found, bounds) for found, bounds in ways)
    raise Infeasible(
        "no way to train keeps all bounds", why, f"{fixes}; or allow more methods, GPUs, copies or offers"
    )


def _freed(jobs: Jobs, bound: Bound, time_limit_s: float) -> Chosen | None:
    """Return the cheapest choice where a bound is as low as lets all jobs run, all others kept."""
    free = jobs.without(bound)
    weights = [bound.weights.get(number, 0.0) for number in range(len(jobs.options))]
    found = _least(free, weights, time_limit_s)
    if found is None:
        return None
    moved = replace(bound, at_most=rounded_up(bound.needed(found.options)))
    return cheapest(replace(free, bounds=(*free.bounds, moved)), time_limit_s)


def _relaxed(jobs: Jobs, found: Chosen, bounds: Sequence[Bound]) -> str:
    """Say which values of bounds let a choice be, and what it costs."""
    values = [f"{b.name} to {rounded_up(b.needed(found.options)):.10g}{b.unit}" for b in bounds]
    names = "; ".join(jobs.options[n].name for n in found.options)
    return f"raise {' and '.join(values)} ({found.cost_usd:,.2f} USD: {names})"


def rounded_up(value: float) -> float:
    """Return a value of four digits that is no less: one that users may write down, and that does."""
    if value <= 0:
        return 0.0
    digits = 3 - math.floor(math.log10(value))
    near = round(value, digits)
    return near if near >= value else round(near + 10.0**-digits, digits)
