"""The highest rate that a test lets pass, looked for near a guess.

Rates are those of a grid, powers of 1 + `width`. The answer is the highest on it that passes next to one
that fails: found by strides that double until they enclose it, then by bisection. The grid is
absolute, so neighbouring guesses find the same answer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hgpu.latency.capacity import HIGHEST_RPS, LOWEST_RPS

FIRST_STRIDE = 4  # grid steps: 12 % where they are 3 %


@dataclass(frozen=True, slots=True)
class RateGrid:
    """The rates that are looked at: powers of 1 + `width`, by number."""

    width: float

    def rate_rps(self, number: int) -> float:
        """Return the rate of a number."""
        return float((1 + self.width) ** number)

    def number(self, rate_rps: float) -> int:
        """Return the highest number whose rate isn't above `rate_rps`, within the limits."""
        lowest, highest = (
            math.floor(math.log(limit) / math.log1p(self.width)) for limit in (LOWEST_RPS, HIGHEST_RPS)
        )
        wanted = math.floor(math.log(max(rate_rps, LOWEST_RPS)) / math.log1p(self.width))
        return min(max(wanted, lowest + 1), highest)


def highest(failed: Callable[[float], str], near_rps: float, grid: RateGrid) -> tuple[float, str]:
    """Return the highest rate of the grid that doesn't fail, or 0 and why not even the lowest does."""
    near = far = grid.number(near_rps)
    first = why = failed(grid.rate_rps(near))
    end = grid.number(LOWEST_RPS if first else HIGHEST_RPS)
    stride = FIRST_STRIDE
    while bool(why) == bool(first):
        if far == end:
            rate_rps = grid.rate_rps(end)
            return (0.0, f"{why} at {rate_rps:.1g} requests/s") if why else (rate_rps, "")
        near, far = far, max(far - stride, end) if first else min(far + stride, end)
        stride *= 2
        why = failed(grid.rate_rps(far))
    good, bad = (far, near) if first else (near, far)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if failed(grid.rate_rps(middle)) else (middle, bad)
    return grid.rate_rps(good), ""
