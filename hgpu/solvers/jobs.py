"""The cheapest way for each of several jobs that share machines: one exact program.

    min  Σ cost_w · x_w                    ways w of all jobs, x_w chosen or not
    s.t. Σ_{w of j} x_w = 1                every job runs, once
         Σ_{w of j} hours_w · x_w ≤ deadline of j
         Σ_{w of j} cost_w · x_w ≤ budget of j
         Σ_w weight_w · x_w ≤ cap          for each limit and each offer's supply: jobs run at the same time

Ways are sorted before anything is built, and HiGHS runs on one thread: the same input gives the same answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from hgpu.core.errors import Infeasible
from hgpu.core.offer import Offer
from hgpu.solvers.highs import Answer, Outcome, minimize
from hgpu.solvers.matrix import Matrix


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
    """Σ weights[option] · chosen ≤ at_most, with the name and unit that users gave it."""

    name: str
    at_most: float
    weights: Mapping[int, float]
    unit: str = ""


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


@dataclass(frozen=True, slots=True)
class Chosen:
    """An option (by number) for each job, their price together, and the size of the program."""

    options: tuple[int, ...]
    cost_usd: float
    variables: int
    constraints: int


def choose(jobs: Jobs, time_limit_s: float = 60.0) -> Chosen:
    """Return the cheapest choice. Raises Infeasible naming what is in the way, and the cheapest way out."""
    found = _solved(jobs, time_limit_s)
    if found is None:
        _raise_infeasible(jobs, time_limit_s)
    return found


def cheapest(jobs: Jobs, time_limit_s: float = 60.0) -> Chosen | None:
    """Return the cheapest choice, None where there is none."""
    return _solved(jobs, time_limit_s)


def _solved(jobs: Jobs, time_limit_s: float) -> Chosen | None:
    matrix, variables = _matrix(jobs, [option.cost_usd for option in jobs.options], None)
    answer = minimize(matrix, 0.0, time_limit_s)
    if answer.outcome is Outcome.INFEASIBLE:
        return None
    picked = tuple(int(n) for n in np.flatnonzero(answer.values[variables] > 0.5))
    cost = sum(jobs.options[n].cost_usd for n in picked)
    return Chosen(picked, cost, matrix.variables, matrix.rows)


def _matrix(jobs: Jobs, costs: Sequence[float], elastic: Bound | None) -> tuple[Matrix, slice]:
    """Build the program; the `elastic` bound may be broken at a cost of 1 for each unit, and nothing else."""
    matrix = Matrix()
    cost = np.zeros(len(jobs.options)) if elastic else np.array(costs)
    chosen = matrix.add_variables(len(jobs.options), cost=cost, upper=1.0, integer=True)
    rows = {name: int(matrix.add_rows(1, lower=1.0, upper=1.0)[0]) for name in jobs.names}
    for number, option in enumerate(jobs.options):
        matrix.add_entries(rows[option.job], chosen[number], 1.0)
    for bound in jobs.bounds:
        row = matrix.add_rows(1, upper=bound.at_most)
        for number, weight in bound.weights.items():
            matrix.add_entries(row, chosen[number], weight)
        if bound is elastic:
            matrix.add_entries(row, matrix.add_variables(1, cost=1.0), -1.0)
    return matrix, slice(0, len(jobs.options))


def _raise_infeasible(jobs: Jobs, time_limit_s: float) -> NoReturn:
    """Raise Infeasible: which bound alone is in the way, what it would have to be, and what that costs."""
    ways = []
    for bound in jobs.bounds:
        needed = _needed(jobs, bound, time_limit_s)
        if needed is not None:
            moved = replace(bound, at_most=needed)
            others = tuple(moved if other is bound else other for other in jobs.bounds)
            found = _solved(replace(jobs, bounds=others), time_limit_s)
            if found is not None:
                names = "; ".join(jobs.options[n].name for n in found.options)
                ways.append((found.cost_usd, bound, needed, names))
    names = ", ".join(f"{bound.name}: {bound.at_most:g}{bound.unit}" for bound in jobs.bounds)
    if not ways:
        raise Infeasible(
            "no way to train keeps all bounds",
            f"several of them together forbid it ({names})",
            "relax more than one of them, or allow more methods, GPUs, copies or offers",
        )
    ways.sort(key=lambda way: (way[0], way[1].name))
    alone = " or ".join(bound.name for _, bound, _, _ in ways)
    said = [
        f"raise {bound.name} to {needed:.4g}{bound.unit} ({cost:,.2f} USD: {option})"
        for cost, bound, needed, option in ways
    ]
    raise Infeasible(
        "no way to train keeps all bounds",
        f"{alone} alone stands in the way ({names})",
        f"{', or '.join(said)}; or allow more methods, GPUs, copies or offers",
    )


def _needed(jobs: Jobs, bound: Bound, time_limit_s: float) -> float | None:
    """Return the least value of a bound, all others kept, that lets all jobs run, if any does."""
    matrix, _ = _matrix(jobs, [], bound)
    answer: Answer = minimize(matrix, 0.0, time_limit_s)
    if answer.outcome is Outcome.INFEASIBLE:
        return None
    needed = bound.at_most + answer.cost
    return needed * (1 + 1e-9)  # the solver's tolerance
