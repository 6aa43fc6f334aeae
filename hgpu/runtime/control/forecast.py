"""The rate to be ready for: Holt's damped trend, raised by how far it fell short lately.

With y the rate of an interval, level l and trend b follow (Gardner and McKenzie, Forecasting trends in time
series, Management Science 31, 1985; Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 8.2)

    l_t = α·y_t + (1 − α)·(l_{t−1} + φ·b_{t−1})
    b_t = β·(l_t − l_{t−1}) + (1 − β)·φ·b_{t−1}
    ŷ_{t+k} = l_t + (φ + φ² + … + φ^k)·b_t

What is ordered now serves after the lead time of h intervals, and what is given up now can't be back
sooner. So what counts is the load until then: the point forecast F_t is the larger of ŷ_{t+1} and ŷ_{t+h}.
Once those intervals are over, the ratio of their highest rate to F_t is known. The upper forecast is F_t
times a quantile of the latest ratios, at least 1. That covers errors of the forecast and bursts at once:
bursts that are shorter than the lead time can't be answered by ordering, they need room. Ratios rather than
differences: they grow with the load. A ratio to a forecast that was made while next to nothing came may be
enormous, so the answer is never more than a quarter above the highest rate that was seen as far back as the
ratios go. Everything is a function of past rates alone.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil


@dataclass(frozen=True, slots=True)
class Smoothing:
    """α, β and φ; the `quantile` of the latest `ratios` errors, of which `least` must be known.

    No forecast goes `beyond` so many times the highest rate seen.
    """

    level: float = 0.1
    trend: float = 0.02
    damping: float = 0.95
    quantile: float = 0.9
    ratios: int = 240
    least: int = 20
    beyond: float = 1.25


@dataclass(slots=True)
class Forecaster:
    """Takes a rate an interval and forecasts the highest of the next `horizon` intervals.

    Until enough errors are known to say how far off it is, the answer is not below `floor_rps`, the rate
    that the fleet was planned for.
    """

    horizon: int
    floor_rps: float
    smoothing: Smoothing = field(default_factory=Smoothing)
    _level: float | None = None
    _trend: float = 0.0
    _seen: deque[float] = field(default_factory=deque)
    _made: deque[float] = field(default_factory=deque)
    _ratios: deque[float] = field(default_factory=deque)

    def add(self, rate_rps: float) -> None:
        """Take the rate of the interval that ended."""
        self._learn(rate_rps)
        s = self.smoothing
        if self._level is None:
            self._level = rate_rps
        else:
            before = self._level
            ahead = s.damping * self._trend
            self._level = s.level * rate_rps + (1 - s.level) * (before + ahead)
            self._trend = s.trend * (self._level - before) + (1 - s.trend) * ahead
        self._made.append(self.point_rps)

    def _learn(self, rate_rps: float) -> None:
        """Note the rate, and the error of the forecast whose intervals are over."""
        self._seen.append(rate_rps)
        if len(self._seen) > self.smoothing.ratios + self.horizon:
            self._seen.popleft()
        if len(self._made) == self.horizon:
            made = self._made.popleft()
            if made > 0:
                self._ratios.append(max(islice(reversed(self._seen), self.horizon)) / made)
            if len(self._ratios) > self.smoothing.ratios:
                self._ratios.popleft()

    @property
    def point_rps(self) -> float:
        """The forecast itself, never negative."""
        if self._level is None:
            return 0.0
        damping = self.smoothing.damping
        steps = sum(damping**k for k in range(1, self.horizon + 1))
        return max(0.0, self._level + damping * self._trend, self._level + steps * self._trend)

    @property
    def upper_rps(self) -> float:
        """The forecast with what its latest errors ask for on top."""
        if len(self._ratios) < self.smoothing.least:
            return max(self.floor_rps, self.point_rps)
        upper_rps = self.point_rps * max(1.0, quantile(self._ratios, self.smoothing.quantile))
        return min(upper_rps, self.smoothing.beyond * max(self._seen))


def quantile(values: Sequence[float] | deque[float], part: float) -> float:
    """Return the smallest value that at least that part of them doesn't exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(part * len(ordered)) - 1)]
