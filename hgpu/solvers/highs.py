"""HiGHS on a matrix: the only file that knows the solver.

A large program is first solved without whole numbers, which takes a fraction of a second. Variables
whose reduced cost is high there are unlikely to be used: the whole-number search leaves them out,
and the bound without whole numbers, which holds for all variables, says how far off that answer can
be. Only where this isn't within the wanted gap are all variables searched.
"""

import time
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

import numpy as np

from hgpu.core.errors import HgpuError
from hgpu.solvers.matrix import Floats, Ints, Matrix

LARGE = 20_000  # variables, from which on a part of them is searched first
PARTS = (0.1, 0.35)  # of the variables, by reduced cost
SHORTEST_S = 0.1  # of a search, where earlier ones used up the time


class Outcome(Enum):
    """What came of a search."""

    PROVEN = auto()
    STOPPED = auto()  # by the time limit, with an answer
    INFEASIBLE = auto()
    NOTHING = auto()  # found in the time


@dataclass(frozen=True, slots=True)
class Answer:
    """Values of the variables, their cost, and a proven lower bound of it."""

    outcome: Outcome
    values: Floats
    cost: float
    bound: float
    row_duals: Floats | None = None


def minimize(matrix: Matrix, gap: float, time_limit_s: float) -> Answer:
    """Return the cheapest values, within a relative gap or as far as the time goes.

    Raises HgpuError where the time runs out with no answer at all.
    """
    started = time.perf_counter()
    if not (gap > 0 and matrix.variables > LARGE and matrix.integer.any()):
        return _answered(_run(matrix, gap, time_limit_s), time_limit_s)
    relaxed, reduced_costs = _relax(matrix, time_limit_s)
    if relaxed.outcome is Outcome.INFEASIBLE:
        return relaxed
    best: Answer | None = None
    for part in (*PARTS, 1.0):
        left_s = max(time_limit_s - (time.perf_counter() - started), SHORTEST_S)
        keep = _promising(matrix, reduced_costs, part) if part < 1 else None
        found = _run(matrix, gap / 2 if part < 1 else gap, left_s, keep)
        if found.outcome is Outcome.PROVEN and part == 1:
            return found
        if best is None or found.cost < best.cost:
            best = replace(found, bound=max(relaxed.cost, found.bound if part == 1 else -np.inf))
        if best.cost - relaxed.cost <= gap * abs(best.cost):
            return replace(best, outcome=Outcome.PROVEN)
    assert best is not None
    return _answered(best, time_limit_s)


def relaxation(matrix: Matrix) -> Answer:
    """Return the answer without whole numbers, with its dual prices."""
    return _relax(matrix, np.inf)[0]


def _promising(matrix: Matrix, reduced_costs: Floats, part: float) -> Ints:
    """Whole-number variables, and the part of the others with the least reduced cost."""
    free = np.flatnonzero(~matrix.integer)
    most = np.quantile(reduced_costs[free], part)
    return np.flatnonzero(matrix.integer | (reduced_costs <= most))


def _relax(matrix: Matrix, time_limit_s: float) -> tuple[Answer, Floats]:
    solver, outcome = _solved(matrix, None, integer=False, gap=0.0, time_limit_s=time_limit_s)
    solution, info = solver.getSolution(), solver.getInfo()
    values = np.array(solution.col_value)
    cost = float(info.objective_function_value)
    answer = Answer(outcome, values, cost, cost, np.array(solution.row_dual))
    return answer, np.array(solution.col_dual)


def _run(matrix: Matrix, gap: float, time_limit_s: float, keep: Ints | None = None) -> Answer:
    solver, outcome = _solved(matrix, keep, integer=True, gap=gap, time_limit_s=time_limit_s)
    info = solver.getInfo()
    if outcome in (Outcome.INFEASIBLE, Outcome.NOTHING):
        return Answer(outcome, np.zeros(0), np.inf, np.inf)
    values = np.zeros(matrix.variables)
    values[slice(None) if keep is None else keep] = solver.getSolution().col_value
    whole = matrix.integer.any()
    cost = float(info.objective_function_value)
    return Answer(outcome, values, cost, float(info.mip_dual_bound) if whole else cost)


def _solved(
    matrix: Matrix, keep: Ints | None, *, integer: bool, gap: float, time_limit_s: float
) -> tuple[Any, Outcome]:
    import highspy

    solver = highspy.Highs()
    options = {"output_flag": False, "threads": 1, "mip_rel_gap": gap, "time_limit": time_limit_s}
    for name, value in options.items():
        solver.setOptionValue(name, value)
    solver.passModel(_model(matrix, keep, integer))
    solver.run()
    return solver, _outcome(solver)


def _model(matrix: Matrix, keep: Ints | None, integer: bool) -> Any:
    import highspy

    which = np.arange(matrix.variables) if keep is None else keep
    coefficients = matrix.coefficients()[:, which]
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(which), matrix.rows
    model.col_cost_ = matrix.costs[which]
    model.col_lower_ = np.zeros(len(which))
    model.col_upper_ = matrix.uppers[which]
    model.row_lower_, model.row_upper_ = matrix.row_bounds
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = coefficients.indptr
    model.a_matrix_.index_ = coefficients.indices
    model.a_matrix_.value_ = coefficients.data
    if integer and matrix.integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[int(whole)] for whole in matrix.integer[which]]
    return model


def _outcome(solver: Any) -> Outcome:
    import highspy

    status, kinds = solver.getModelStatus(), highspy.HighsModelStatus
    if status == kinds.kOptimal:
        return Outcome.PROVEN
    if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        return Outcome.INFEASIBLE
    feasible = solver.getInfo().primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    if status == kinds.kTimeLimit:
        return Outcome.STOPPED if feasible else Outcome.NOTHING
    raise HgpuError("the solver gave up", f"HiGHS ended with '{solver.modelStatusToString(status)}'")


def _answered(answer: Answer, time_limit_s: float) -> Answer:
    """Return the answer, or raise where the time was too short to find any."""
    if answer.outcome is not Outcome.NOTHING:
        return answer
    raise HgpuError(
        "the solver found no allocation",
        f"the time limit of {time_limit_s:g} s struck before it had any",
        "raise --time-limit, accept a --gap such as 0.001, or reduce the offers and buckets",
    )
