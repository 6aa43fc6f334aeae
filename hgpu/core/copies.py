"""What copying experts from the host adds to an engine's steps."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class ExpertCopies:
    """Seconds of copying in a step, by how many tokens pass through the model in it.

    For `exposed_s` the step waits. Copies that begin before their layer is reached hide behind what one layer
    computes meanwhile; they differ from layer to layer and from step to step. `ahead_s` are some equally
    likely sums of them, each as if all layers of a step were alike, and a step takes

        mean over ahead of max(compute, ahead) + exposed.

    All are given at `tokens`, which rise, are linear between them and from 0 at no tokens, and stay as they
    are above. None falls, so that a larger step is never predicted to be faster.
    """

    tokens: tuple[float, ...]
    exposed_s: tuple[float, ...]
    ahead_s: tuple[tuple[float, ...], ...] = ()

    def step_s(self, tokens: Any, compute_s: Any) -> Any:
        """Return the seconds of a step; floats or arrays, and the same bits from either."""
        exposed_s = _along(self.tokens, self.exposed_s, tokens)
        if not self.ahead_s:
            return compute_s + exposed_s
        longer_s = 0.0 * compute_s
        for row_s in self.ahead_s:
            ahead_s = _along(self.tokens, row_s, tokens)
            longer_s = longer_s + compute_s * (ahead_s <= compute_s) + ahead_s * (ahead_s > compute_s)
        return longer_s / len(self.ahead_s) + exposed_s

    def slower(self, factor: float) -> "ExpertCopies":
        """Return the copies with all their seconds multiplied."""
        ahead_s = tuple(tuple(seconds * factor for seconds in row_s) for row_s in self.ahead_s)
        return replace(self, exposed_s=tuple(s * factor for s in self.exposed_s), ahead_s=ahead_s)


def _along(places: tuple[float, ...], values: tuple[float, ...], at: Any) -> Any:
    """Return a piecewise linear function that begins at (0, 0): the sum of what each piece adds.

    Written with arithmetic alone, as core has no arrays of its own.
    """
    total = 0.0 * at
    for (left, low), (right, high) in pairwise([(0.0, 0.0), *zip(places, values, strict=True)]):
        part = (at - left) * (at > left) / (right - left)
        total = total + (high - low) * (part * (part < 1) + (part >= 1))
    return total
