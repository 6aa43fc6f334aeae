"""How long one component of a reinforcement-learning loop takes, by how many GPUs it has or what they carry.

A profile is a few measured points. Between them time follows a power law, t = a·x^b, through both neighbours
(our proposal: exact for perfect and for constant scaling); outside of them nothing is said. RLinf's own
placement tool needs one point only and scales it by fixed laws (`toolkits/auto_placement/node.py` of
RLinf/RLinf): they are here under its name, as estimates.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from hgpu.core.errors import InputError
from hgpu.core.provenance import Provenance


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds, and what they are worth: `measured` at a point, `fitted` between two, `estimated` by a law."""

    seconds: float
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Profile:
    """Measured seconds by x, rising: GPUs of a component, or environments in one of its processes."""

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        if not self.points or any(x < 1 or not 0 < s < math.inf for x, s in self.points):
            raise InputError(
                "a profile needs points with seconds above zero", f"it has {dict(self.points)}", "measure it"
            )

    @property
    def lowest(self) -> int:
        """Smallest measured x."""
        return self.points[0][0]

    @property
    def highest(self) -> int:
        """Largest measured x."""
        return self.points[-1][0]

    def at(self, x: int) -> Reading | None:
        """Return the seconds at x, or None outside of what was measured."""
        if not self.lowest <= x <= self.highest:
            return None
        place = bisect_left(self.points, (x, 0.0))
        right_x, right_s = self.points[place]
        if right_x == x:
            return Reading(right_s, Provenance.MEASURED)
        left_x, left_s = self.points[place - 1]
        power = math.log(right_s / left_s) / math.log(right_x / left_x)
        return Reading(left_s * (x / left_x) ** power, Provenance.FITTED)


def profile_of(seconds: Mapping[int, float]) -> Profile:
    """Return the profile of seconds by x."""
    return Profile(tuple(sorted(seconds.items())))


@dataclass(frozen=True, slots=True)
class TrainingLaw:
    """RLinf's estimate for training and log-probabilities with Megatron from one measured point.

    With s = measured GPUs / n, t(n) = t·s / (1 + min(0.9, max(s/10, 0.1))): fewer GPUs lose less time to
    communication.
    """

    gpus: int
    seconds: float

    def at(self, n: int) -> Reading | None:
        """Return the seconds with n GPUs, or None with more than were measured."""
        if n == self.gpus:
            return Reading(self.seconds, Provenance.MEASURED)
        if not 1 <= n < self.gpus:
            return None
        scale = self.gpus / n
        seconds = self.seconds * scale / (1 + min(0.9, max(scale / 10, 0.1)))
        return Reading(seconds, Provenance.ESTIMATED)


@dataclass(frozen=True, slots=True)
class GenerationLaw:
    """RLinf's estimate for generation from one measured point.

    While all `requests` of an iteration run at once, more engines change nothing: the longest answer decides.
    With fewer, time goes with 1/n. An engine of `model_parallel` GPUs runs `running_requests` at once, of
    which RLinf counts 90 % from 128 on.
    """

    gpus: int
    seconds: float
    model_parallel: int
    requests: int
    running_requests: int

    def at(self, n: int) -> Reading | None:
        """Return the seconds with n GPUs, or None with more than were measured."""
        if n == self.gpus:
            return Reading(self.seconds, Provenance.MEASURED)
        if not 1 <= n < self.gpus:
            return None
        share = 0.9 if self.running_requests >= 128 else 1.0
        at_once = n // self.model_parallel * math.ceil(self.running_requests * share)
        slower = 1.0 if at_once >= self.requests else self.gpus / n
        return Reading(self.seconds * slower, Provenance.ESTIMATED)


Curve = Profile | TrainingLaw | GenerationLaw
