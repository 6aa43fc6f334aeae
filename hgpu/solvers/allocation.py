"""The minimal-cost allocation: which machines, how many, and who serves what.

Mélange (arXiv 2404.14527, section 5) packs slices of request rate into GPUs with one binary
variable per slice and GPU. Slices of a bucket are interchangeable and a router can split a
rate at will, so here a *continuous* share of each bucket goes to each column (an offer running
one operating point) and only the counts are integers (`hgpu/solvers/model.py` has the equations).
It has no symmetric solutions, is exact, and never costs more than the sliced form.

Buckets and columns are sorted before anything is built, and HiGHS runs on one thread: the order of
the inputs doesn't matter, and the same inputs give the same answer, ties included.
"""

import time
from dataclasses import replace

from hgpu.core.errors import Infeasible
from hgpu.core.operating_point import Mode
from hgpu.solvers.alike import merged, unmerged
from hgpu.solvers.extraction import allocation_of
from hgpu.solvers.highs import Answer, Outcome, minimize
from hgpu.solvers.model import Layout, layout_of
from hgpu.solvers.order import reordered, sorted_problem
from hgpu.solvers.problem import Problem, Solution, Status
from hgpu.solvers.relaxations import raise_infeasible, raise_unaffordable

SERVED_SLACK = 1e-7  # relative: what the cheapest way to serve as much may lose of it


def solve(problem: Problem) -> Solution:
    """Return the cheapest allocation, or with a budget the one that serves most, cheapest among equals.

    Raises Infeasible naming the bucket that nobody serves, or the limits that can't hold and the least
    by which one would have to be raised.
    """
    whole, problem = problem, merged(problem)
    _check_served(problem)
    ordered, buckets = sorted_problem(problem)
    started = time.perf_counter()
    layout = layout_of(ordered)
    built = time.perf_counter()
    answer = minimize(layout.matrix, problem.gap, problem.time_limit_s)
    if answer.outcome is Outcome.INFEASIBLE:
        raise_infeasible(ordered)
    served = 1.0
    if layout.served is not None:
        served = float(answer.values[layout.served])
        ordered, layout, answer = _cheapest_of_most(ordered, served)
    allocation = allocation_of(ordered, layout, answer)
    solved = time.perf_counter()
    cost = allocation.usd_per_hour
    return Solution(
        unmerged(reordered(allocation, buckets), whole),
        Status.OPTIMAL if answer.outcome is Outcome.PROVEN else Status.FEASIBLE,
        cost - max(0.0, answer.cost - answer.bound),
        layout.matrix.variables,
        layout.matrix.rows,
        built - started,
        solved - built,
        served,
    )


def only_gpu(problem: Problem, gpu: str) -> Problem:
    """Return the problem with the columns of one GPU type, limits kept."""
    kept = [number for number, column in enumerate(problem.columns) if column.point.gpu == gpu]
    return with_columns(problem, kept)


def all_resident(problem: Problem) -> Problem:
    """Return the problem without engines that keep experts in host memory, limits kept."""
    kept = [number for number, column in enumerate(problem.columns) if column.point.mode is not Mode.OFFLOAD]
    return problem if len(kept) == len(problem.columns) else with_columns(problem, kept)


def with_columns(problem: Problem, kept: list[int]) -> Problem:
    """Return the problem with some of its columns, in this order, limits kept."""
    position = {old: new for new, old in enumerate(kept)}
    limits = tuple(
        replace(limit, weights={position[c]: w for c, w in limit.weights.items() if c in position})
        for limit in problem.limits
    )
    running = {position[c]: count for c, count in problem.running.items() if c in position}
    columns = tuple(problem.columns[c] for c in kept)
    return replace(problem, columns=columns, limits=limits, running=running)


def _check_served(problem: Problem) -> None:
    for number, (name, rate) in enumerate(zip(problem.bucket_names, problem.rates_rps, strict=True)):
        if rate > 0 and not any(column.capacity_rps[number] > 0 for column in problem.columns):
            raise Infeasible(
                f"no GPU type can serve requests with {name} tokens",
                f"none of {len(problem.columns)} offers meets the objectives for them all, even unloaded",
                "relax an objective, allow other GPU types, or set routing: lengths if clients state outputs",
            )


def _cheapest_of_most(problem: Problem, served: float) -> tuple[Problem, Layout, Answer]:
    """The cheapest way to serve as much of the mix as the budget can buy."""
    if served <= SERVED_SLACK:
        raise_unaffordable(problem)
    scale = served * (1 - SERVED_SLACK)
    scaled = replace(
        problem, rates_rps=tuple(rate * scale for rate in problem.rates_rps), budget_usd_per_hour=None
    )
    layout = layout_of(scaled)
    answer = minimize(layout.matrix, problem.gap, problem.time_limit_s)
    return scaled, layout, answer
