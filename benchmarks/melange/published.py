"""The published allocation problem: slices of each bucket's rate, one binary for each slice and GPU type.

Mélange (Griggs et al., arXiv 2404.14527, section 5) cuts the rate of each bucket into
`slice_factor` equal slices and packs them, with A[s,g] = 1 where type g serves slice s, and
B[g] machines of type g:

    min  Σ_g price_g · B_g
    s.t. Σ_g A_sg = 1                                    each slice is served once
         Σ_s (rate_b(s) / slice_factor) / capacity_b(s)g · A_sg ≤ B_g   load of a type
         A_sg ∈ {0, 1};  B_g ∈ ℕ

Written from the paper. As in its release, PuLP hands it to CBC on one thread. One thing is
added: where a type can't serve a bucket there is no binary, so that both formulations are
given the same instances.
"""

import re
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.core.errors import HgpuError, InputError
from hgpu.solvers.problem import Problem

SLICE_FACTOR = 8  # the paper's


@dataclass(frozen=True, slots=True)
class Packed:
    """What CBC found by its time limit: machines by column, and how far that is proven."""

    counts: tuple[int, ...]
    usd_per_hour: float
    proven: bool
    bound_usd_per_hour: float | None
    binaries: int
    build_s: float
    solve_s: float


def solve_published(
    problem: Problem, slice_factor: int = SLICE_FACTOR, time_limit_s: float = 60.0
) -> Packed | None:
    """Return the cheapest packing that CBC finds, or None where it finds none in time.

    Raises InputError where the problem has what the published one can't say: limits, machines of
    several engines. Raises HgpuError where CBC is missing.
    """
    import pulp

    _check(problem)
    began_s = time.perf_counter()
    model, counts, binaries = _build(problem, slice_factor)
    built_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "cbc.log"
        solver = _cbc(time_limit_s, log)
        model.solve(solver)
        solved_s = time.perf_counter()
        bound = _bound(log.read_text())
    proven = model.sol_status == pulp.LpSolutionOptimal
    if not proven and model.sol_status != pulp.LpSolutionIntegerFeasible:
        return None
    machines = tuple(round(count.value() or 0.0) for count in counts)
    cost = sum(n * column.offer.usd_per_hour for n, column in zip(machines, problem.columns, strict=True))
    return Packed(
        machines, cost, proven, cost if proven else bound, binaries, built_s - began_s, solved_s - built_s
    )


def _check(problem: Problem) -> None:
    several = [c.offer.instance_type for c in problem.columns if c.engines_per_machine != 1]
    if problem.limits or several:
        raise InputError(
            "the published formulation can't take this problem",
            f"it has neither limits nor machines of several engines ({', '.join(several) or 'limits'})",
            "give one engine a machine and no limits",
        )


def _cbc(time_limit_s: float, log: Path) -> Any:
    import pulp

    with warnings.catch_warnings():  # this name, the release's, goes with PuLP 4, which hgpu doesn't take
        warnings.simplefilter("ignore", DeprecationWarning)
        solver = pulp.PULP_CBC_CMD(msg=False, timeLimit=time_limit_s, threads=1, logPath=str(log))
    if not solver.available():
        raise HgpuError("CBC is missing", "this PuLP brings none for this machine", "use PuLP 3.3's wheel")
    return solver


def _build(problem: Problem, slice_factor: int) -> tuple[Any, list[Any], int]:
    import pulp

    model = pulp.LpProblem("published", pulp.LpMinimize)
    columns = problem.columns
    counts = [model.add_variable(f"B{g}", lowBound=0, cat="Integer") for g in range(len(columns))]
    model += pulp.LpAffineExpression(
        [(count, column.offer.usd_per_hour) for count, column in zip(counts, columns, strict=True)]
    )
    loads: list[list[tuple[Any, float]]] = [[] for _ in columns]
    for b, rate in enumerate(problem.rates_rps):
        for number in range(slice_factor if rate > 0 else 0):
            served = []
            for g, column in enumerate(columns):
                if column.capacity_rps[b] > 0:
                    binary = model.add_variable(f"A{b}_{number}_{g}", cat="Binary")
                    served.append((binary, 1.0))
                    loads[g].append((binary, rate / slice_factor / column.capacity_rps[b]))
            model += pulp.LpAffineExpression(served) == 1
    for count, load in zip(counts, loads, strict=True):
        model += pulp.LpAffineExpression([*load, (count, -1.0)]) <= 0
    return model, counts, sum(map(len, loads))


def _bound(log: str) -> float | None:
    """Read the lower bound from CBC's closing lines, which it writes where it stopped early."""
    found = re.findall(r"^Lower bound:\s+(\S+)", log, re.MULTILINE)
    return float(found[-1]) if found else None
