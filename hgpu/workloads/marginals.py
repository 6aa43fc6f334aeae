"""Distributions of one length: exact, uniform, lognormal, or through published quantiles."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hgpu.workloads.trace import Floats, Ints


class Marginal(Protocol):
    """A distribution of one length in tokens; every sample is at least 1."""

    def sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Return n lengths in tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Whole numbers from `low` to `high` tokens, both included; `low == high` is exact."""

    low: int
    high: int

    def sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Return n lengths in tokens."""
        return rng.integers(self.low, self.high, size=n, endpoint=True, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Lognormal with this mean in tokens and this standard deviation of the log length.

    The median is mean · exp(-sigma²/2).
    """

    mean: float
    sigma: float

    def sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Return n lengths in tokens."""
        return _whole(rng.lognormal(math.log(self.mean) - self.sigma**2 / 2, self.sigma, size=n))


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The published mean, P50, P95 and P99 in tokens, joined so that all four hold.

    The quantile function is piecewise linear in (probability, log length) through (0, min), P50,
    P95, P99 and (1, max). A segment of width w from a to b tokens contributes w·(b - a)/ln(b/a)
    to the mean. `max` goes on from P99 as far, in the logarithm, as P99 lies from P95; `min`
    takes what is left of the mean. Raises ValueError where no `min` from 1 to P50 does.
    """

    mean: float
    p50: float
    p95: float
    p99: float

    @property
    def max(self) -> float:
        """The longest length in tokens."""
        return self.p99**2 / self.p95

    @property
    def min(self) -> float:
        """The shortest length in tokens, found by bisection on the mean of the lower half."""
        rest = (
            0.45 * _segment_mean(self.p50, self.p95)
            + 0.04 * _segment_mean(self.p95, self.p99)
            + 0.01 * _segment_mean(self.p99, self.max)
        )
        lower_mean = (self.mean - rest) / 0.5
        low, high = 1.0, self.p50
        if not _segment_mean(low, self.p50) <= lower_mean <= self.p50:
            raise ValueError(f"no shortest length gives a mean of {self.mean} tokens")
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _segment_mean(middle, self.p50) < lower_mean else (low, middle)
        return low

    def sample(self, n: int, rng: np.random.Generator) -> Ints:
        """Return n lengths in tokens."""
        knots = np.log([self.min, self.p50, self.p95, self.p99, self.max])
        return _whole(np.exp(np.interp(rng.random(n), [0.0, 0.5, 0.95, 0.99, 1.0], knots)))


def _segment_mean(a: float, b: float) -> float:
    """Mean of a length whose logarithm is uniform between ln a and ln b."""
    return a if b - a < 1e-9 * b else (b - a) / math.log(b / a)


def _whole(lengths: Floats) -> Ints:
    return np.maximum(1, np.rint(lengths)).astype(np.int64)
