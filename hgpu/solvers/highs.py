"""HiGHS on a matrix: the only file that knows the solver.

A large program is first solved without whole numbers, which takes a fraction of a second. Its bound holds
for every answer, so a search of a part of the variables (`hgpu/solvers/parts.py`) may prove its own answer
to be near enough. Where none does, everything is searched, from the best answer of a part.
"""

import time
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

import numpy as np

from hgpu.core.errors import HgpuError
from hgpu.solvers.matrix import Floats, Ints, Matrix
from hgpu.solvers.parts import parts_of

LARGE = 20_000  # variables, from which on a part of them is searched first
PART_OF_TIME = 0.25  # that one of these searches may take
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


def minimize(matrix: Matrix, gap: float, time_limit_s: float) -> Answer:
    """Return the cheapest values, within a relative gap or as far as the time goes.

    Raises HgpuError where the time runs out with no answer at all.
    """
    if not (gap > 0 and matrix.variables > LARGE and matrix.integer.any()):
        return _answered(_run(matrix, gap, time_limit_s), time_limit_s)
    ends_s = time.perf_counter() + time_limit_s
    relaxed, reduced_costs = _relax(matrix, time_limit_s)
    if relaxed.outcome is Outcome.INFEASIBLE:
        return relaxed
    best = Answer(Outcome.NOTHING, np.zeros(0), np.inf, relaxed.cost)
    for keep in parts_of(matrix, relaxed.values, reduced_costs):
        left_s = min(ends_s - time.perf_counter(), PART_OF_TIME * time_limit_s)
        found = _run(matrix, gap / 2, max(left_s, SHORTEST_S), keep)
        if found.cost < best.cost:
            best = replace(found, outcome=Outcome.STOPPED, bound=relaxed.cost)
        if best.outcome is Outcome.STOPPED and best.cost - best.bound <= gap * abs(best.cost):
            return replace(best, outcome=Outcome.PROVEN)
    start = best.values if best.outcome is Outcome.STOPPED else None
    found = _run(matrix, gap, max(ends_s - time.perf_counter(), SHORTEST_S), start=start)
    if found.outcome in (Outcome.PROVEN, Outcome.INFEASIBLE):
        return found
    bound = max(best.bound, found.bound if found.outcome is Outcome.STOPPED else -np.inf)
    best = _answered(replace(min(best, found, key=lambda answer: answer.cost), bound=bound), time_limit_s)
    near = best.cost - bound <= gap * abs(best.cost)
    return replace(best, outcome=Outcome.PROVEN if near else best.outcome)


def _relax(matrix: Matrix, time_limit_s: float) -> tuple[Answer, Floats]:
    solver, outcome = _solved(matrix, integer=False, gap=0.0, time_limit_s=time_limit_s)
    solution, info = solver.getSolution(), solver.getInfo()
    values = np.array(solution.col_value)
    cost = float(info.objective_function_value)
    return Answer(outcome, values, cost, cost), np.array(solution.col_dual)


def _run(
    matrix: Matrix, gap: float, time_limit_s: float, keep: Ints | None = None, start: Floats | None = None
) -> Answer:
    """Search some of the variables, or all of them from a known answer."""
    solver, outcome = _solved(matrix, keep, start, integer=True, gap=gap, time_limit_s=time_limit_s)
    info = solver.getInfo()
    if outcome in (Outcome.INFEASIBLE, Outcome.NOTHING):
        return Answer(outcome, np.zeros(0), np.inf, np.inf)
    values = np.zeros(matrix.variables)
    values[slice(None) if keep is None else keep] = solver.getSolution().col_value
    whole = matrix.integer.any()
    cost = float(info.objective_function_value)
    return Answer(outcome, values, cost, float(info.mip_dual_bound) if whole else cost)


def _solved(
    matrix: Matrix,
    keep: Ints | None = None,
    start: Floats | None = None,
    *,
    integer: bool,
    gap: float,
    time_limit_s: float,
) -> tuple[Any, Outcome]:
    import highspy

    solver = highspy.Highs()
    options = {"output_flag": False, "threads": 1, "mip_rel_gap": gap, "time_limit": time_limit_s}
    for name, value in options.items():
        solver.setOptionValue(name, value)
    solver.passModel(_model(matrix, keep, integer))
    if start is not None:
        known = highspy.HighsSolution()
        known.col_value = start.tolist()
        solver.setSolution(known)
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
