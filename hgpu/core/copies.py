"""What copying experts from the host adds to an engine's steps."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class ExpertCopies:
    """Seconds of copying in a step, by how many tokens pass through the model in it.

    A step takes max(compute, ahead) + exposed: `ahead_s` are copies that began before their layer was
    reached, and hide behind what is computed meanwhile; for `exposed_s` the step waits. Both are given at
    `tokens`, which rise, are linear between them and from 0 at no tokens, and stay as they are above.
    Neither falls, so that a larger step is never predicted to be faster.
    """

    tokens: tuple[float, ...]
    ahead_s: tuple[float, ...]
    exposed_s: tuple[float, ...]

    def step_s(self, tokens: Any, compute_s: Any) -> Any:
        """Return the seconds of a step; floats or arrays, and the same bits from either."""
        ahead_s = _along(self.tokens, self.ahead_s, tokens)
        longer_s = compute_s * (ahead_s <= compute_s) + ahead_s * (ahead_s > compute_s)
        return longer_s + _along(self.tokens, self.exposed_s, tokens)

    def slower(self, factor: float) -> "ExpertCopies":
        """Return the copies with all their seconds multiplied."""
        ahead_s = tuple(seconds * factor for seconds in self.ahead_s)
        return replace(self, ahead_s=ahead_s, exposed_s=tuple(s * factor for s in self.exposed_s))


def _along(places: tuple[float, ...], values: tuple[float, ...], at: Any) -> Any:
    """Return a piecewise linear function that begins at (0, 0): the sum of what each piece adds.

    Written with arithmetic alone, as core has no arrays of its own.
    """
    total = 0.0 * at
    for (left, low), (right, high) in pairwise([(0.0, 0.0), *zip(places, values, strict=True)]):
        part = (at - left) * (at > left) / (right - left)
        total = total + (high - low) * (part * (part < 1) + (part >= 1))
    return total
