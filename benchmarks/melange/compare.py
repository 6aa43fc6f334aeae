"""hgpu's allocation against the published formulation, on the same random instances in one run.

    python benchmarks/melange/compare.py [--sizes 10x4 60x4 100x10] [--seeds 3] [--time-limit 60]

Each instance is solved by one and then by the other, on one thread each. Seconds hold building
and solving. Ends with an error where hgpu costs more than the published formulation.
"""

import argparse
import importlib.metadata
from datetime import UTC, datetime

from instances import random_problem
from published import SLICE_FACTOR, Packed, solve_published

from hgpu.solvers.allocation import solve
from hgpu.solvers.problem import Problem, Solution, Status

SIZES = ("10x4", "20x4", "36x4", "60x4", "60x8", "100x10")
TOLERANCE_USD = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="buckets x GPU types")
    parser.add_argument("--seeds", type=int, default=3, help="instances of each size")
    parser.add_argument("--slice-factor", type=int, default=SLICE_FACTOR)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds, for either solver")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("pulp", "highspy"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {versions}, slice factor {options.slice_factor}, ", end="")
    print(f"time limit {options.time_limit:g} s\n")
    print(
        "| buckets × types | seed | hgpu USD/h | s | proven | published USD/h | s | proven (bound) ", end=""
    )
    print("| times as long | published dearer by |")
    print("|---|---:|---:|---:|---|---:|---:|---|---:|---|")
    warm = random_problem(4, 4)
    solve(warm)  # imports count for neither
    solve_published(warm, 1)
    for size in options.sizes:
        buckets, types = (int(part) for part in size.split("x"))
        for seed in range(options.seeds):
            problem = random_problem(buckets, types, seed, time_limit_s=options.time_limit)
            print(f"| {buckets} × {types} | {seed} {row(problem, options)}", flush=True)


def row(problem: Problem, options: argparse.Namespace) -> str:
    """Solve a problem both ways and return its cells; an AssertionError if hgpu's answer is the dearer."""
    ours = solve(problem)
    theirs = solve_published(problem, options.slice_factor, options.time_limit)
    ours_s = ours.build_s + ours.solve_s
    cells = f"| {ours.allocation.usd_per_hour:.3f} | {ours_s:.2f} | {said(ours)} "
    if theirs is None:
        return f"{cells}| none | > {options.time_limit:g} | no | | |"
    dearer = theirs.usd_per_hour - ours.allocation.usd_per_hour
    assert dearer >= -TOLERANCE_USD, f"hgpu costs {-dearer} USD/h more than the published formulation"
    theirs_s = theirs.build_s + theirs.solve_s
    by = f"{dearer:.3f} ({dearer / ours.allocation.usd_per_hour:.1%})" if dearer > TOLERANCE_USD else "no"
    cells += f"| {theirs.usd_per_hour:.3f} | {theirs_s:.2f} | {proof(theirs)} "
    return f"{cells}| {theirs_s / ours_s:.0f} | {by} |"


def said(solution: Solution) -> str:
    proven = solution.status == Status.OPTIMAL and solution.gap <= TOLERANCE_USD
    return "yes" if proven else f"no ({solution.bound_usd_per_hour:.3f})"


def proof(packed: Packed) -> str:
    if packed.proven:
        return "yes"
    return "no" if packed.bound_usd_per_hour is None else f"no ({packed.bound_usd_per_hour:.3f})"


if __name__ == "__main__":
    main()
