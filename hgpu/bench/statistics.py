"""How sure two arms of runs are of their difference.

The unit of replication is the run: requests of one run share its server, so that thousands of them say
nothing of how the next server does. A hierarchical bootstrap draws runs with replacement, then requests
within each run (Davison & Hinkley, Bootstrap Methods, §3.8). Two things are put right in it. Drawing n runs
shows (n − 1)/n of the variance S² between them; drawing requests again shows, on top, noise that S² already
holds, and takes a trace that all runs share for noise. So what the requests add is scaled to what the runs
lack, S²/n. And as few runs give a poor S², the interval is widened from the normal to Student's t with
Welch's degrees of freedom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, expm1, log, sqrt

import numpy as np

from hgpu.artifacts.payloads.comparison import Effect
from hgpu.bench.resampling import Floats

MOST_RUNS = 100  # an arm; what needs more is not settled by running more
LEAST_P = 1e-9
TINY = 1e-6  # of the base; a ratio of zero has no logarithm


@dataclass(frozen=True, slots=True)
class ArmMean:
    """The mean of a statistic over an arm's runs, and the same of each resample of it."""

    mean: float
    resampled: Floats
    runs: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Head against base on the scale where the error is about normal: log ratio, or points.

    `deviations` are those of the resamples, sorted; `df` the degrees of freedom of their Student's t.
    """

    effect: Effect
    value: float
    deviations: Floats
    df: float

    @property
    def change(self) -> float:
        """Head/base − 1, or head − base of shares."""
        return self._change(self.value)

    @property
    def certain(self) -> bool:
        """Tell whether all runs of an arm said the same, so that chance has no part in the difference."""
        return not self.deviations.any()

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the bounds of the change at a confidence, as a ratio − 1 or in points."""
        low, high = self.reach(confidence)
        return self._change(self.value + low), self._change(self.value + high)

    def reach(self, confidence: float) -> tuple[float, float]:
        """Return how far the interval goes below and above the value, on this scale."""
        tail = (1.0 - confidence) / 2.0
        low, high = np.quantile(self.deviations, [tail, 1.0 - tail])
        wider = _t_over_normal(self.df, tail)
        return float(low) * wider, float(high) * wider

    def p_beyond(self, tolerance: float) -> float:
        """Return the one-sided p of "the change is beyond the tolerance", on the side where it lies.

        It is the least p at which the whole interval of confidence 1 − 2p is beyond; found by bisection.
        """
        low, high = self.bounds(tolerance)
        if low <= self.value <= high:
            return 1.0
        least, most = log(LEAST_P), log(0.5)
        for _ in range(40):
            middle = (least + most) / 2.0
            below, above = self.reach(1.0 - 2.0 * exp(middle))
            beyond = self.value + below > high or self.value + above < low
            least, most = (least, middle) if beyond else (middle, most)
        return exp(most)

    def bounds(self, tolerance: float) -> tuple[float, float]:
        """Return the ends of a tolerance on this scale."""
        if self.effect is Effect.RATIO:
            return log(1.0 - tolerance), log(1.0 + tolerance)
        return -tolerance, tolerance

    def _change(self, value: float) -> float:
        return expm1(value) if self.effect is Effect.RATIO else value


def arm_mean(
    values: Sequence[float], redrawn: Sequence[Floats], resamples: int, rng: np.random.Generator
) -> ArmMean:
    """Return the mean of `values`, one a run; `redrawn` has each run's statistic over redrawn requests."""
    runs, middle = np.array(values), float(np.mean(values))
    n = len(runs)
    if n < 2:
        return ArmMean(middle, np.full(resamples, middle), n)
    pool = np.stack(redrawn)
    pool = pool - pool.mean(axis=1, keepdims=True)
    between, within = float(runs.var(ddof=1)), float(pool.var())
    share = min(1.0, sqrt(between / (n * within))) if within > 0.0 else 0.0
    rows = rng.integers(0, n, (resamples, n))
    columns = rng.integers(0, pool.shape[1], (resamples, n))
    means = (runs[rows] + share * pool[rows, columns]).mean(axis=1)
    shown = between * (n - 1) / n + share**2 * within
    lacking = sqrt(between / shown) if shown > 0.0 else 1.0
    return ArmMean(middle, middle + lacking * (means - middle), n)


def difference(base: ArmMean, head: ArmMean, effect: Effect) -> Difference:
    """Return head against base. A ratio needs a base above zero; a head of zero is a ratio of about zero."""
    arms = (base, head)
    if effect is Effect.RATIO:
        least = TINY * base.mean
        middles = [log(max(arm.mean, least)) for arm in arms]
        drawn = [np.log(np.maximum(arm.resampled, least)) for arm in arms]
    else:
        middles, drawn = [arm.mean for arm in arms], [arm.resampled for arm in arms]
    parts = [rows - middle for rows, middle in zip(drawn, middles, strict=True)]
    deviations = np.sort(parts[1] - parts[0])
    df = _welch([float(part.var()) for part in parts], [arm.runs for arm in arms])
    return Difference(effect, middles[1] - middles[0], deviations, df)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979): the k-th smallest of m times m − k + 1."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    corrected = [0.0] * len(ps)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, ps[index] * (len(ps) - place)))
        corrected[index] = largest
    return corrected


def more_runs(found: Difference, tolerance: float, confidence: float, runs: int) -> int | None:
    """Return about how many more runs an arm would settle on which side of the tolerance the change lies.

    The interval shrinks with the root of the runs; None where that takes more than MOST_RUNS.
    """
    distance = min(abs(found.value - bound) for bound in found.bounds(tolerance))
    half = max(abs(reach) for reach in found.reach(confidence))
    if distance == 0.0 or half / distance > sqrt(MOST_RUNS / runs):
        return None
    return max(1, ceil(runs * (half / distance) ** 2) - runs)


def _welch(variances: Sequence[float], runs: Sequence[int]) -> float:
    parts = sum(v**2 / (n - 1) for v, n in zip(variances, runs, strict=True) if n > 1)
    return sum(variances) ** 2 / parts if parts > 0.0 else float(max(1, sum(runs) - 2))


def _t_over_normal(df: float, tail: float) -> float:
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(df, tail) / ndtri(tail)) if tail < 0.5 else 1.0
