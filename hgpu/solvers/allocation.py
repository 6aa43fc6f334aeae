"""The minimal-cost allocation: which machines, how many, and who serves what.

Mélange (arXiv 2404.14527, section 5) packs slices of request rate into GPUs with one binary
variable per slice and GPU. Slices of a bucket are interchangeable and a router can split a
rate at will, so here a *continuous* share of each bucket goes to each column (an offer running
one operating point) and only the machine counts are integers:

    min  Σ_c price_c · n_c
    s.t. Σ_c x_bc = 1                                  every bucket is served
         Σ_b rate_b · x_bc / capacity_bc ≤ engines_c · n_c   no engine beyond its capacity
         Σ_{c in group} weight_c · n_c ≤ limit          caps
         x_bc ≥ 0, only where capacity_bc > 0;  n_c ∈ ℕ

It has no symmetric solutions, is exact, and never costs more than the sliced form.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hgpu.core.allocation import Allocation, Pool
from hgpu.core.errors import HgpuError, Infeasible
from hgpu.core.offer import Offer
from hgpu.core.operating_point import OperatingPoint

SHARE_FLOOR = 1e-9  # smaller shares are the solver's rounding


class Status(StrEnum):
    """What the solver says of its answer."""

    OPTIMAL = "optimal"  # proven within the gap
    FEASIBLE = "feasible"  # the time limit struck first; the bound says how far off it may be


@dataclass(frozen=True, slots=True)
class Column:
    """An offer whose machines run engines at one operating point.

    `capacity_rps` has a rate per bucket for one engine, 0 where it can't serve the bucket.
    """

    offer: Offer
    point: OperatingPoint
    capacity_rps: tuple[float, ...]

    @property
    def engines_per_machine(self) -> int:
        """Engines that fit on one machine."""
        return self.offer.gpu_count // self.point.tp


@dataclass(frozen=True, slots=True)
class Limit:
    """Σ weights[column] · machines ≤ at_most (or ≥ at_least), with the name that users gave it."""

    name: str
    weights: Mapping[int, float]
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Rates by bucket, the columns that may serve them, and limits on the columns' counts."""

    bucket_names: tuple[str, ...]
    rates_rps: tuple[float, ...]
    columns: tuple[Column, ...]
    limits: tuple[Limit, ...] = ()
    gap: float = 0.0
    time_limit_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Solution:
    """An allocation with the solver's own account of it."""

    allocation: Allocation
    status: Status
    bound_usd_per_hour: float
    variables: int
    constraints: int
    build_s: float
    solve_s: float

    @property
    def gap(self) -> float:
        """How much cheaper, at most, any allocation could be, as a part of this one's cost."""
        cost = self.allocation.usd_per_hour
        return max(0.0, (cost - self.bound_usd_per_hour) / cost) if cost else 0.0


def solve(problem: Problem) -> Solution:
    """Return the cheapest allocation.

    Raises Infeasible naming the bucket that nobody serves or the limits that can't hold.
    """
    _check_served(problem)
    started = time.perf_counter()
    model, counts, shares = _build(problem)
    built = time.perf_counter()
    status, bound = _run(model, problem)
    solved = time.perf_counter()
    machines = [round(count.value() or 0.0) for count in counts]
    allocation = _allocation(problem, machines, shares)
    return Solution(
        allocation,
        status,
        min(bound, allocation.usd_per_hour),
        model.numVariables(),
        model.numConstraints(),
        built - started,
        solved - built,
    )


def only_gpu(problem: Problem, gpu: str) -> Problem:
    """Return the problem with the columns of one GPU type, limits kept."""
    kept = [number for number, column in enumerate(problem.columns) if column.point.gpu == gpu]
    position = {old: new for new, old in enumerate(kept)}
    limits = tuple(
        Limit(
            limit.name,
            {position[c]: w for c, w in limit.weights.items() if c in position},
            limit.at_most,
            limit.at_least,
        )
        for limit in problem.limits
    )
    return Problem(
        problem.bucket_names,
        problem.rates_rps,
        tuple(problem.columns[c] for c in kept),
        limits,
        problem.gap,
        problem.time_limit_s,
    )


def _check_served(problem: Problem) -> None:
    for number, (name, rate) in enumerate(zip(problem.bucket_names, problem.rates_rps, strict=True)):
        if rate > 0 and not any(column.capacity_rps[number] > 0 for column in problem.columns):
            raise Infeasible(
                f"no GPU type can serve requests with {name} tokens",
                f"none of {len(problem.columns)} offers meets the objectives for them, even unloaded",
                "relax the objective that `hgpu plan` names for them, or allow other GPU types",
            )


def _build(problem: Problem) -> tuple[Any, list[Any], dict[tuple[int, int], Any]]:
    import pulp

    model = pulp.LpProblem("allocation", pulp.LpMinimize)
    counts = [model.add_variable(f"n{c}", lowBound=0, cat="Integer") for c in range(len(problem.columns))]
    model += pulp.LpAffineExpression(
        [(counts[c], column.offer.usd_per_hour) for c, column in enumerate(problem.columns)]
    )
    shares = {
        (b, c): model.add_variable(f"x{b}_{c}", lowBound=0)
        for c, column in enumerate(problem.columns)
        for b, capacity in enumerate(column.capacity_rps)
        if capacity > 0 and problem.rates_rps[b] > 0
    }
    for b, rate in enumerate(problem.rates_rps):
        if rate > 0:
            served = [(shares[b, c], 1.0) for c in range(len(counts)) if (b, c) in shares]
            model += pulp.LpAffineExpression(served) == 1
    for c, column in enumerate(problem.columns):
        load = [
            (shares[b, c], rate / column.capacity_rps[b])
            for b, rate in enumerate(problem.rates_rps)
            if (b, c) in shares
        ]
        model += pulp.LpAffineExpression([*load, (counts[c], -float(column.engines_per_machine))]) <= 0
    for limit in problem.limits:
        total = pulp.LpAffineExpression([(counts[c], weight) for c, weight in limit.weights.items()])
        if limit.at_most is not None:
            model += total <= limit.at_most
        if limit.at_least is not None:
            model += total >= limit.at_least
    return model, counts, shares


def _run(model: Any, problem: Problem) -> tuple[Status, float]:
    import pulp

    solver = pulp.HiGHS(msg=False, timeLimit=problem.time_limit_s, gapRel=problem.gap, threads=1)
    code = model.solve(solver)
    if code == pulp.LpStatusInfeasible:
        _raise_infeasible(problem)
    if model.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        raise HgpuError(
            "the solver found no allocation",
            f"HiGHS ended with '{pulp.LpStatus[code]}' after at most {problem.time_limit_s:g} s",
            "raise --time-limit, or reduce the offers and buckets",
        )
    info = model.solverModel.getInfo()
    proven = model.sol_status == pulp.LpSolutionOptimal
    bound = info.mip_dual_bound if info.mip_node_count >= 0 else info.objective_function_value
    return (Status.OPTIMAL if proven else Status.FEASIBLE), float(bound)


def _raise_infeasible(problem: Problem) -> None:
    """Say which limit binds: the one without which the rest can be met, where there is one."""
    alone = [limit.name for limit in problem.limits if _feasible_without(problem, limit)]
    why = (
        f"limit {' or '.join(alone)} alone stands in the way"
        if alone
        else "several limits together forbid it"
    )
    raise Infeasible(
        "no allocation serves the workload within the limits",
        f"{why} (limits: {', '.join(limit.name for limit in problem.limits)})",
        f"raise {alone[0] if alone else 'the limits'}, lower the rate, or allow more offers",
    )


def _feasible_without(problem: Problem, dropped: Limit) -> bool:
    import pulp

    rest = tuple(limit for limit in problem.limits if limit is not dropped)
    model, _, _ = _build(Problem(problem.bucket_names, problem.rates_rps, problem.columns, rest))
    code = model.solve(pulp.HiGHS(msg=False, timeLimit=problem.time_limit_s, threads=1))
    return bool(code == pulp.LpStatusOptimal)


def _allocation(
    problem: Problem, machines: Sequence[int], shares: Mapping[tuple[int, int], Any]
) -> Allocation:
    used = [c for c, count in enumerate(machines) if count]
    matrix = []
    for b, rate in enumerate(problem.rates_rps):
        raw = [max(0.0, shares[b, c].value() or 0.0) if (b, c) in shares else 0.0 for c in used]
        raw = [share if share > SHARE_FLOOR else 0.0 for share in raw]
        matrix.append(tuple(share / sum(raw) for share in raw) if rate > 0 else tuple(0.0 for _ in raw))
    pools = []
    for position, c in enumerate(used):
        column = problem.columns[c]
        load = sum(
            problem.rates_rps[b] * matrix[b][position] / column.capacity_rps[b]
            for b in range(len(matrix))
            if matrix[b][position]
        )
        pools.append(Pool(column.offer, column.point, machines[c], load))
    return Allocation(tuple(pools), tuple(matrix))
