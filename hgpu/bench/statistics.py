"""How sure two arms of runs are of their difference.

The unit of replication is the run: requests of one run share its server, so that thousands of them say
nothing of how the next server does. A hierarchical bootstrap (runs with replacement, then requests within
each run; Davison & Hinkley, Bootstrap Methods, §3.8) gives the variance of an arm's mean over its runs. Drawing
requests again on top of runs counts their noise twice, which errs towards "inconclusive". Resampling n runs
shows (n − 1)/n of the variance between them, which is put right, and Student's t with Welch's degrees of
freedom stands for the normal: with five runs an arm that is what keeps the error rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, expm1, log, sqrt

import numpy as np

from hgpu.artifacts.payloads.comparison import Effect
from hgpu.bench.resampling import Floats

MOST_RUNS = 100  # an arm; what needs more is not settled by running more


@dataclass(frozen=True, slots=True)
class ArmMean:
    """The mean of a statistic over an arm's runs, and the variance of that mean."""

    mean: float
    variance: float
    runs: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Head against base on the scale where the error is about normal: log ratio, or points.

    `se` is the standard error, `df` the degrees of freedom of its Student's t.
    """

    effect: Effect
    value: float
    se: float
    df: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the bounds of the change at a confidence, as a ratio − 1 or in points."""
        half = _quantile(self.df, (1.0 + confidence) / 2.0) * self.se
        return self._change(self.value - half), self._change(self.value + half)

    @property
    def change(self) -> float:
        """Head/base − 1, or head − base of shares."""
        return self._change(self.value)

    def p_beyond(self, tolerance: float) -> float:
        """Return the two-sided p of "the change is beyond the tolerance", on the side where it lies.

        It is below 1 − c just where the whole interval of confidence c is beyond.
        """
        low, high = self.bounds(tolerance)
        distance = max(low - self.value, self.value - high)
        if self.se == 0.0 or distance <= 0.0:
            return 0.0 if distance > 0.0 else 1.0
        return min(1.0, 2.0 * _tail(self.df, distance / self.se))

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
    runs = len(values)
    if runs < 2:
        return ArmMean(float(np.mean(values)), 0.0, runs)
    pool = np.stack(redrawn)
    rows = rng.integers(0, runs, (resamples, runs))
    columns = rng.integers(0, pool.shape[1], (resamples, runs))
    means = pool[rows, columns].mean(axis=1)
    return ArmMean(float(np.mean(values)), float(means.var()) * runs / (runs - 1), runs)


def difference(base: ArmMean, head: ArmMean, effect: Effect) -> Difference:
    """Return head against base. A ratio needs a base above zero; a head of zero is a ratio of zero."""
    if effect is Effect.RATIO:
        value = log(head.mean / base.mean) if head.mean > 0.0 else -float("inf")
        scaled = [arm.variance / arm.mean**2 if arm.mean else 0.0 for arm in (base, head)]
    else:
        value, scaled = head.mean - base.mean, [base.variance, head.variance]
    return Difference(effect, value, sqrt(sum(scaled)), _welch(scaled, (base.runs, head.runs)))


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
    half = _quantile(found.df, (1.0 + confidence) / 2.0) * found.se
    if distance == 0.0 or half / distance > sqrt(MOST_RUNS / runs):
        return None
    return max(1, ceil(runs * (half / distance) ** 2) - runs)


def _welch(variances: Sequence[float], runs: Sequence[int]) -> float:
    parts = sum(v**2 / (n - 1) for v, n in zip(variances, runs, strict=True) if n > 1)
    return sum(variances) ** 2 / parts if parts > 0.0 else float(max(1, sum(runs) - 2))


def _quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def _tail(df: float, t: float) -> float:
    from scipy.special import stdtr

    return float(stdtr(df, -t))
