"""How hgpu's allocation alone grows: from 10 buckets to 10,000, and 1,000 buckets × 100 columns under caps.

    python benchmarks/melange/growth.py [--buckets 10 100 1000 10000] [--gap 0.001] [--time-limit 60]

Prints a table and draws seconds against buckets to `growth.png` beside this file.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from instances import random_problem, with_caps

from hgpu.solvers.allocation import solve
from hgpu.solvers.problem import Problem, Solution, Status

BUCKETS = (10, 30, 100, 300, 1000, 3000, 10_000)
COLUMNS = 10
LARGE = (1000, 100)
CAPS = {1: 3, 2: 4, 5: 6, 10: 10, 30: 20, 100: 60}  # times the rate: machines of each type but the dearest
PICTURE = Path(__file__).with_name("growth.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--buckets", nargs="*", type=int, default=BUCKETS)
    parser.add_argument("--gap", type=float, default=1e-3, help="accept answers this close to the optimum")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for the solver")
    parser.add_argument("--no-large", action="store_true", help="leave out 1,000 × 100 under caps")
    options = parser.parse_args()
    print("| buckets × columns | caps | USD/h | status | gap | build s | solve s |")
    print("|---|---|---:|---|---:|---:|---:|")
    seconds = [solved(random_problem(buckets, COLUMNS), "no", options) for buckets in sorted(options.buckets)]
    if not options.no_large:
        for scale, cap in CAPS.items():
            base = with_caps(random_problem(*LARGE), cap)
            scaled = replace(base, rates_rps=tuple(rate * scale for rate in base.rates_rps))
            solved(scaled, f"≤ {cap} of each but one; {scale}× the rate", options)
    if len(seconds) > 1:
        draw(sorted(options.buckets), seconds)


def solved(problem: Problem, caps: str, options: argparse.Namespace) -> Solution:
    """Solve a problem and print its row."""
    solution = solve(replace(problem, gap=options.gap, time_limit_s=options.time_limit))
    size = f"{len(problem.rates_rps):,} × {len(problem.columns)}"
    print(
        f"| {size} | {caps} | {solution.allocation.usd_per_hour:.3f} | {solution.status} "
        f"| {solution.gap:.2%} | {solution.build_s:.2f} | {solution.solve_s:.2f} |",
        flush=True,
    )
    return solution


def draw(buckets: list[int], solutions: list[Solution]) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    axes.loglog(buckets, [s.build_s for s in solutions], "s--", label="building")
    axes.loglog(buckets, [s.solve_s for s in solutions], "o-", label="solving")
    stopped = [(b, s.solve_s) for b, s in zip(buckets, solutions, strict=True) if s.status != Status.OPTIMAL]
    if stopped:
        axes.loglog(*zip(*stopped, strict=True), "rx", markersize=11, label="stopped by the time limit")
    axes.set_xlabel(f"buckets ({COLUMNS} columns)")
    axes.set_ylabel("seconds, one thread")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
