"""Why limits can't hold, and the least by which one of them would have to give."""

import math
from dataclasses import replace
from typing import NoReturn

from hgpu.core.errors import Infeasible
from hgpu.solvers.highs import Outcome, minimize
from hgpu.solvers.model import layout_of
from hgpu.solvers.problem import Limit, Problem

LONGEST_S = 20.0
ROUGH_GAP = 0.01
LIGHT = 0.01  # of the engine that takes the least of it: a load that any fleet at all carries


def raise_infeasible(problem: Problem) -> NoReturn:
    """Raise Infeasible: name the limits each of which alone is in the way.

    With them stands what each would have to be, and what the fleet would cost then; the cheapest first.
    """
    needed = [
        (limit, value) for limit in problem.limits if (value := needed_value(problem, limit)) is not None
    ]
    names = ", ".join(limit.name for limit in problem.limits)
    if needed:
        alone = " or ".join(limit.name for limit, _ in needed)
        reason = f"limit {alone} alone stands in the way (limits: {names})"
        costs = [(_cost_with(problem, limit, value), limit, value) for limit, value in needed]
        costs.sort(key=lambda row: (row[0], row[1].name))
        ways = [
            f"{_verb(row)} '{row.name}' to {value + row.used:g} ({cost:,.2f} USD/h)"
            for cost, row, value in costs
        ]
        fix = f"{', or '.join(ways)}; or lower the rate, or allow more offers"
    elif len(problem.limits) > 1:
        reason = f"several limits together forbid it (limits: {names})"
        fix = "raise more than one of them, lower the rate, or allow more offers"
    else:
        reason = f"limits: {names}" if names else "no number of machines is enough"
        fix = "lower the rate, or allow more offers"
    raise Infeasible("no allocation serves the workload within the limits", reason, fix)


def raise_unaffordable(problem: Problem) -> NoReturn:
    """Raise Infeasible where a budget buys nothing: name the least that serves some of the mix."""
    loads = [
        sum(rate / can for rate, can in zip(problem.rates_rps, column.capacity_rps, strict=True) if can > 0)
        for column in problem.columns
    ]
    scale = LIGHT / min((load for load in loads if load > 0), default=1.0)
    rates = tuple(rate * scale for rate in problem.rates_rps)
    layout = layout_of(replace(problem, rates_rps=rates, budget_usd_per_hour=None))
    answer = minimize(layout.matrix, 0.0, LONGEST_S)
    if answer.outcome is Outcome.INFEASIBLE:
        raise_infeasible(replace(problem, budget_usd_per_hour=None))
    usd = answer.cost + problem.committed_usd_per_hour
    raise Infeasible(
        f"{problem.budget_usd_per_hour:g} USD/h buy nothing that serves the workload",
        f"the smallest fleet that serves some of it costs {usd:,.2f} USD/h",
        f"set budget_usd_per_hour to {math.ceil(usd * 100) / 100:.2f} or more, or allow more offers",
    )


def needed_value(problem: Problem, limit: Limit) -> float | None:
    """Return the value of one limit, all others kept, that just lets the problem be solved, if any does."""
    layout = layout_of(replace(problem, budget_usd_per_hour=None), elastic=limit.name)
    answer = minimize(layout.matrix, 0.0, LONGEST_S)
    if answer.outcome is Outcome.INFEASIBLE:
        return None
    by = answer.cost
    if limit.at_most is not None:
        return math.ceil(limit.at_most + by - 1e-6)
    assert limit.at_least is not None
    return math.floor(limit.at_least - by + 1e-6)


def _cost_with(problem: Problem, limit: Limit, value: float) -> float:
    """Return the cost of the cheapest fleet where one limit has another value."""
    moved = replace(limit, at_most=value) if limit.at_most is not None else replace(limit, at_least=value)
    limits = tuple(moved if other is limit else other for other in problem.limits)
    layout = layout_of(replace(problem, limits=limits, budget_usd_per_hour=None))
    return minimize(layout.matrix, ROUGH_GAP, LONGEST_S).cost + problem.committed_usd_per_hour


def _verb(limit: Limit) -> str:
    return "raise" if limit.at_most is not None else "lower"
