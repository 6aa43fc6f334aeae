"""Does a simulated run keep the objectives? Not more misses than chance alone would explain.

With n requests judged, an objective at percentile p allows a share 1 − p of them to miss. Few misses can be
luck, so a run passes only with c misses at most, the largest c with P(Binomial(n, 1 − p) ≤ c) ≤ 5 %.
That is the same as asking that the upper 95 % confidence bound of the percentile, an order statistic,
be within the limit (David and Nagaraja, Order Statistics, section 7.1). The bound takes requests as
independent. Those that share a busy spell aren't, so it is no promise of 95 %; a p99 over 4,000 requests
allows 29 misses where 40 are expected.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hgpu.core.slo import Objective, Slo
from hgpu.simulator.result import EngineRun
from hgpu.workloads.trace import Floats

CHANCE = 0.05  # that a load which misses the objective by a hair passes


@dataclass(frozen=True, slots=True)
class Window:
    """The requests that are judged: numbers from `first` up to, and without, `end`.

    Those before it fill the engine, those after it keep it busy until the last judged one has ended.
    """

    first: int
    end: int


def failure(run: EngineRun, slo: Slo, window: Window) -> str:
    """Return why a run doesn't keep the objectives; empty where it does."""
    for name, objective, values_s in _measured(run, slo, window):
        if objective is None or not len(values_s):
            continue
        missed = int((values_s > objective.limit_s).sum())
        if missed > allowed_misses(len(values_s), objective.percentile):
            limit_ms = objective.limit_s * 1e3
            return f"{missed} of {len(values_s)} requests miss {name} {limit_ms:g} ms"
    return ""


def _measured(run: EngineRun, slo: Slo, window: Window) -> list[tuple[str, Objective | None, Floats]]:
    numbers = np.flatnonzero(run.output_tokens > 1)
    judged = slice(window.first, window.end)
    return [
        ("TPOT", slo.tpot, run.tpot_s[(numbers >= window.first) & (numbers < window.end)]),
        ("TTFT", slo.ttft, run.ttft_s[judged]),
        ("latency", slo.e2e, run.e2e_s[judged]),
    ]


def saturated_rps(run: EngineRun, window: Window) -> float:
    """Return the rate at which requests end in a run whose requests are all there from the start.

    A queue grows without end at rates above it and at none below (saturation rule: Baccelli and Foss, On the
    saturation rule for the stability of queues, J. Appl. Prob. 32, 1995). Unlike a look at one
    queue, it can't be taken in by a burst.
    """
    ends_s = np.sort(run.end_s)
    return float((window.end - window.first) / (ends_s[window.end] - ends_s[window.first]))


@lru_cache
def allowed_misses(requests: int, percentile: float) -> int:
    """Return how many of so many requests may miss; see the head of this file.

    None where so few are judged that even none would prove nothing (a few outputs of two tokens
    among many of one, which have no TPOT).
    """
    from scipy.stats import binom

    return max(0, int(binom.ppf(CHANCE, requests, 1 - percentile / 100)) - 1)
