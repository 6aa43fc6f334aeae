"""Which script to run once more: the one that removes most doubt per engine second.

After every script has had its base repeats, engine time goes where the samples are still uncertain.
A sample's uncertainty is the standard error of its median, spread · 1.25/√repeats; a script's is that
of its worst sample, and its worth is that over the seconds that a run of it takes. It ends when no
sample is more uncertain than the target, or the budget is spent.
"""

import math
import statistics
from collections.abc import Sequence

from hgpu.profilers.design import Script
from hgpu.profilers.journal import Journal, Run
from hgpu.profilers.samples import merge_steps
from hgpu.profilers.telemetry_rules import valid_runs

MEDIAN_PENALTY = 1.25  # standard error of a median over that of a mean, for normal noise
MOST_REPEATS = 20


def next_run(
    scripts: Sequence[Script], journal: Journal, target_error: float, budget_s: float
) -> tuple[Script, int] | None:
    """Return the script to run once more with the number of that run, or None where it is enough.

    `target_error` is relative, `budget_s` engine seconds in all, those already journaled among them.
    """
    best: tuple[float, Script, int] | None = None
    spent_s = sum(run_s(run) for run in journal.runs)
    for script in scripts:
        tries = [run for run in journal.runs if run.script == script.name]
        runs = valid_runs(tries)
        if not runs:
            continue
        cost_s = statistics.median(run_s(run) for run in runs)
        doubt = uncertainty(script.name, runs)
        if doubt <= target_error or len(tries) >= MOST_REPEATS or spent_s + cost_s > budget_s:
            continue
        worth = doubt / cost_s
        if best is None or worth > best[0]:
            best = (worth, script, max(run.repeat for run in tries) + 1)
    return None if best is None else best[1:]


def uncertainty(name: str, runs: Sequence[Run]) -> float:
    """Return the relative standard error of the script's least certain sample."""
    samples = merge_steps(name, [run.steps for run in runs])
    return max(MEDIAN_PENALTY * sample.spread / math.sqrt(sample.repeats) for sample in samples)


def run_s(run: Run) -> float:
    """Return the engine seconds of a run."""
    return sum(seconds for _, seconds in run.steps)
