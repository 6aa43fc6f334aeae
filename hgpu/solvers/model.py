"""The allocation problem as a mixed-integer program.

    min  Σ_g price_g · n_g                                       machines of each offer g
    s.t. Σ_c x_bc = φ                                            every bucket is served
         Σ_b rate_b/capacity_bc · x_bc ≤ m_c − spare · E_c · z_c no engine beyond its capacity
         Σ_{c in g, tp_c ≥ t} (tp_c/t) · m_c ≤ (GPUs_g//t) · n_g engines fit on the machines
         Σ_{c spot} x_bc ≤ preemptible_share_b · φ               part that may be lost at once
         limits on n and m;  x ≥ 0;  n, m whole;  z = 1 where m_c > 0

x is the share of a bucket that a column serves, m a column's engines, E how many a machine holds. φ is 1;
with a budget it is what is made as large as the budget allows. Where all engines of an offer are of one
column, m = E · n; where each fills a machine, n = Σ m: those need no variable of their own.
"""

from dataclasses import dataclass

import numpy as np

from hgpu.core.offer import Market, Offer
from hgpu.solvers.matrix import Floats, Ints, Matrix
from hgpu.solvers.problem import Column, Limit, Problem, Unit

PAID_ANYWAY = 1e-6  # of its price: a reserved machine is used before any other, and none without need


@dataclass(frozen=True, slots=True)
class Group:
    """The columns (by number) that share the machines of an offer, and their variables.

    `machines` are the variables that add up to the machines; a column's engines are its variable in
    `engines` times the number beside it.
    """

    offer: Offer
    columns: tuple[int, ...]
    machines: Ints
    engines: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A matrix, and where what stands in it: the groups, and φ."""

    matrix: Matrix
    groups: tuple[Group, ...]
    served: int | None


def layout_of(problem: Problem, elastic: str | None = None) -> Layout:
    """Build the program of a problem.

    With `elastic`, the limit of that name may be broken, and by how much is all that is minimised: what
    is the least that it would have to be raised?
    """
    matrix = Matrix()
    free = problem.budget_usd_per_hour is not None or elastic is not None
    groups = tuple(_add_group(matrix, problem, group, free) for group in _grouped(problem.columns))
    served = None
    if problem.budget_usd_per_hour is not None and elastic is None:
        served = int(matrix.add_variables(1, cost=-1.0)[0])
    capacity = np.array([column.capacity_rps for column in problem.columns]).T
    rates = np.array(problem.rates_rps)
    usable = (capacity > 0) & (rates[:, None] > 0)
    buckets, columns = np.nonzero(usable)
    shares = matrix.add_variables(len(buckets))
    matrix.shares, matrix.share_buckets, matrix.share_columns = shares, buckets, columns
    load = rates[buckets] / capacity[buckets, columns]
    _serve(matrix, problem, shares, buckets, served)
    engines = {c: term for group in groups for c, term in zip(group.columns, group.engines, strict=True)}
    _carry(matrix, problem, engines, shares, columns, load)
    if problem.limits_spot:
        _keep_off_spot(matrix, problem, shares, buckets, columns, served)
    if problem.change_usd_per_hour and not free:
        _penalise_changes(matrix, problem, engines)
    for limit in problem.limits:
        _limit(matrix, limit, groups, engines, elastic)
    if problem.budget_usd_per_hour is not None:
        _within_budget(matrix, problem, groups)
    return Layout(matrix, groups, served)


def _grouped(columns: tuple[Column, ...]) -> list[list[int]]:
    groups: dict[tuple[str, Offer], list[int]] = {}
    for number, column in enumerate(columns):
        groups.setdefault((column.service, column.offer), []).append(number)
    return list(groups.values())


def _add_group(matrix: Matrix, problem: Problem, numbers: list[int], free: bool) -> Group:
    columns = [problem.columns[c] for c in numbers]
    offer = columns[0].offer
    price = 0.0 if free else offer.usd_per_hour
    if offer.market is Market.RESERVED:
        price *= PAID_ANYWAY
    each = [column.engines_per_machine for column in columns]
    if len(columns) == 1 or all(count == 1 for count in each):
        machines = matrix.add_variables(len(columns), cost=price, integer=True)
        terms = tuple((int(v), count) for v, count in zip(machines, each, strict=True))
        return Group(offer, tuple(numbers), machines, terms)
    machines = matrix.add_variables(1, cost=price, integer=True)
    engines = matrix.add_variables(len(columns), integer=True)
    sizes = np.array([column.point.tp for column in columns])
    for size in sorted(set(sizes.tolist())):
        row = matrix.add_rows(1, upper=0.0)
        wide = sizes >= size
        matrix.add_entries(row, engines[wide], sizes[wide] // size)
        matrix.add_entries(row, machines, -float(offer.gpu_count // size))
    return Group(offer, tuple(numbers), machines, tuple((int(v), 1) for v in engines))


def _serve(matrix: Matrix, problem: Problem, shares: Ints, buckets: Ints, served: int | None) -> None:
    wanted = np.flatnonzero(np.array(problem.rates_rps) > 0)
    whole = 0.0 if served is not None else 1.0
    rows = matrix.add_rows(len(wanted), lower=whole, upper=whole)
    row_of = np.full(len(problem.rates_rps), -1)
    row_of[wanted] = rows
    matrix.add_entries(row_of[buckets], shares, 1.0)
    if served is not None:
        matrix.add_entries(rows, served, -1.0)


def _carry(
    matrix: Matrix,
    problem: Problem,
    engines: dict[int, tuple[int, int]],
    shares: Ints,
    columns: Ints,
    load: Floats,
) -> None:
    """No engine beyond its capacity, with spare machines where a pool is used."""
    rows = matrix.add_rows(len(problem.columns), upper=0.0)
    matrix.add_entries(rows[columns], shares, load)
    for c, (variable, count) in engines.items():
        matrix.add_entries(rows[c], variable, -float(count))
        spare = problem.columns[c].spare_machines
        if spare:
            lost = spare * problem.columns[c].engines_per_machine
            used = matrix.add_variables(1, upper=1.0, integer=True)
            matrix.add_entries(rows[c], used, float(lost))
            most = float(load[columns == c].sum()) + lost + count
            row = matrix.add_rows(1, upper=0.0)
            matrix.add_entries(row, variable, float(count))
            matrix.add_entries(row, used, -most)


def _keep_off_spot(
    matrix: Matrix, problem: Problem, shares: Ints, buckets: Ints, columns: Ints, served: int | None
) -> None:
    spot = np.array([column.offer.market is Market.SPOT for column in problem.columns])
    mine = spot[columns]
    if not mine.any():
        return
    part = np.array(problem.preemptible_shares)
    rows = matrix.add_rows(len(problem.rates_rps), upper=part if served is None else 0.0)
    matrix.add_entries(rows[buckets[mine]], shares[mine], 1.0)
    if served is not None:
        matrix.add_entries(rows, served, -part)


def _penalise_changes(matrix: Matrix, problem: Problem, engines: dict[int, tuple[int, int]]) -> None:
    """|engines − running| as started + stopped, each at its price."""
    for c, (variable, count) in engines.items():
        now = float(problem.running.get(c, 0))
        changes = matrix.add_variables(2, cost=problem.change_usd_per_hour)
        row = matrix.add_rows(1, lower=now, upper=now)
        matrix.add_entries(row, [variable, *changes], [float(count), -1.0, 1.0])


def _limit(
    matrix: Matrix,
    limit: Limit,
    groups: tuple[Group, ...],
    engines: dict[int, tuple[int, int]],
    elastic: str | None,
) -> None:
    lower = -np.inf if limit.at_least is None else limit.at_least
    upper = np.inf if limit.at_most is None else limit.at_most
    row = matrix.add_rows(1, lower, upper)
    if limit.unit is Unit.ENGINES:
        for c, weight in limit.weights.items():
            variable, count = engines[c]
            matrix.add_entries(row, variable, weight * count)
    else:
        for group in groups:
            weights = [limit.weights[c] for c in group.columns if c in limit.weights]
            if weights:
                matrix.add_entries(row, group.machines, weights[0])
    if elastic == limit.name:
        slack = matrix.add_variables(1, cost=1.0)
        matrix.add_entries(row, slack, -1.0 if limit.at_most is not None else 1.0)


def _within_budget(matrix: Matrix, problem: Problem, groups: tuple[Group, ...]) -> None:
    assert problem.budget_usd_per_hour is not None
    row = matrix.add_rows(1, upper=problem.budget_usd_per_hour - problem.committed_usd_per_hour)
    for group in groups:
        if group.offer.market is not Market.RESERVED:
            matrix.add_entries(row, group.machines, group.offer.usd_per_hour)
