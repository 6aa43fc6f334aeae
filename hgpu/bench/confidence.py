"""Does a load keep the objectives, for all that so many requests can tell?

With n requests and an objective at percentile p, m misses would be too many for chance if the load kept it
(P(Binomial(n, 1 − p) ≥ m) ≤ α: it fails), too few if it broke it (P(Binomial(n, 1 − p) ≤ m) ≤ α: it
passes), or neither (undecided: more requests are needed). Even without a miss it takes ln α/ln p requests
to pass. Requests count as independent, which those of one busy spell are not; α is no promise, but a rule
that many requests satisfy.
"""

import math
from enum import StrEnum

from hgpu.core.slo import Objective, Slo

ALPHA = 0.05  # that a load which keeps, or breaks, the objective by a hair is judged wrongly


class Verdict(StrEnum):
    """What can be said of a load."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


def verdict(misses: int, requests: int, percentile: float, alpha: float = ALPHA) -> Verdict:
    """Return what so many misses say."""
    from scipy.stats import binom

    allowed = 1 - percentile / 100
    if binom.cdf(misses, requests, allowed) <= alpha:
        return Verdict.PASS
    return Verdict.FAIL if binom.sf(misses - 1, requests, allowed) <= alpha else Verdict.UNDECIDED


def slo_verdict(missed: dict[str, int], requests: int, slo: Slo, alpha: float = ALPHA) -> Verdict:
    """Return the worst verdict over the objectives."""
    found = [
        verdict(missed[name], requests, objective.percentile, alpha)
        for name, objective in objectives(slo).items()
    ]
    order = (Verdict.FAIL, Verdict.UNDECIDED, Verdict.PASS)
    return min(found, key=order.index)


def objectives(slo: Slo) -> dict[str, Objective]:
    """Return the objectives that there are, by name."""
    named = {"ttft": slo.ttft, "tpot": slo.tpot, "e2e": slo.e2e}
    return {name: objective for name, objective in named.items() if objective}


def requests_needed(slo: Slo, alpha: float = ALPHA) -> int:
    """Return how many requests without a miss it takes to pass."""
    highest = max(objective.percentile for objective in objectives(slo).values())
    return math.ceil(math.log(alpha) / math.log(highest / 100))
