"""Which split to run: one phase as fast as can be, while the other keeps near its best.

Two goals, after Nexus (arXiv 2507.06608, its partition search). While the KV cache has room, prefill is
made fast:

    min T_p   such that   T_d ≤ β · T_d^min        (β = 1.1)

and when it fills up, decode, which empties it:

    min T_d   such that   T_p ≤ α · T_p^min        (α = 1.3)

T^min is the least of all splits, beside the other phase, so the slack alone always leaves a split. (Taken
alone on the whole device it would leave none as soon as the two contend for bandwidth.) An objective in
seconds may leave none. Then the answer names it, with what is reached at best, and is the split that comes
nearest; it is never dropped.

The search looks at every split. There are 30 on an H200, 51 on an A100: all of them at once cost less than
a search that would have to prove that it skipped nothing, as decode's time isn't monotone in its share.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from hgpu.core.errors import InputError
from hgpu.core.partition import Split
from hgpu.latency.partition import Floats, PhaseTimes


class Goal(StrEnum):
    """The phase that is made as fast as can be; the other one is constrained."""

    PREFILL = "prefill"
    DECODE = "decode"

    @property
    def other(self) -> "Goal":
        """The phase that is constrained."""
        return Goal.DECODE if self is Goal.PREFILL else Goal.PREFILL


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """How far the constrained phase may be from its best (α, β), and objectives in seconds a step."""

    prefill_slack: float = 1.3
    decode_slack: float = 1.1
    prefill_objective_s: float | None = None
    decode_objective_s: float | None = None

    def __post_init__(self) -> None:
        slacks = (self.prefill_slack, self.decode_slack)
        if not all(1 <= slack < float("inf") for slack in slacks):
            raise InputError(
                f"slacks of {slacks} can't be kept", "no phase is faster than its best: 1 or more"
            )
        given = [s for s in (self.prefill_objective_s, self.decode_objective_s) if s is not None]
        if not all(objective > 0 for objective in given):
            raise InputError(f"objectives of {given} s can't be kept", "a step takes longer than 0 s")

    def slack(self, phase: Goal) -> float:
        """Return how many times its best a constrained phase may take."""
        return self.prefill_slack if phase is Goal.PREFILL else self.decode_slack

    def objective_s(self, phase: Goal) -> float:
        """Return the most seconds that a phase's step should take, infinite where nobody says."""
        given = self.prefill_objective_s if phase is Goal.PREFILL else self.decode_objective_s
        return float("inf") if given is None else given


@dataclass(frozen=True, slots=True)
class Unkept:
    """An objective that a split misses.

    At a chosen split, of the constrained phase: no split keeps it, and `reached_s` is the least of all. Of
    the other: none of the splits keeps it that keep the constraint.
    """

    phase: Goal
    objective_s: float
    reached_s: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The split for a goal, the seconds of a step of each phase under it, and what it can't keep."""

    goal: Goal
    split: Split
    prefill_s: float
    decode_s: float
    unkept: tuple[Unkept, ...] = ()


def choose(times: PhaseTimes, goal: Goal, options: ChoiceOptions) -> Choice:
    """Return the best split; of equal ones that whose other phase is faster, then the first."""
    index = best(times, goal, options)
    prefill_s, decode_s = float(times.prefill_s[index]), float(times.decode_s[index])
    return Choice(goal, times.splits[index], prefill_s, decode_s, unkept_at(times, index, options))


def best(times: PhaseTimes, goal: Goal, options: ChoiceOptions) -> int:
    """Return the index of the split that `choose` takes."""
    wanted, held = phase_s(times, goal), phase_s(times, goal.other)
    keeps = held <= bound_s(times, goal, options)
    if not keeps.any():
        return _least(held, wanted)
    return _least(np.where(keeps, wanted, np.inf), held)


def bound_s(times: PhaseTimes, goal: Goal, options: ChoiceOptions) -> float:
    """Return the most seconds that the constrained phase may take: its slack or its objective."""
    held = phase_s(times, goal.other)
    return min(options.slack(goal.other) * float(held.min()), options.objective_s(goal.other))


def unkept_at(times: PhaseTimes, index: int, options: ChoiceOptions) -> tuple[Unkept, ...]:
    """Return the objectives that a split misses."""
    reached = {phase: float(phase_s(times, phase)[index]) for phase in Goal}
    return tuple(
        Unkept(phase, options.objective_s(phase), seconds)
        for phase, seconds in reached.items()
        if seconds > options.objective_s(phase)
    )


def phase_s(times: PhaseTimes, phase: Goal) -> Floats:
    """Return the seconds of one phase under each split."""
    return times.prefill_s if phase is Goal.PREFILL else times.decode_s


def _least(first: Floats, second: Floats) -> int:
    return int(np.argmin(np.where(first == first.min(), second, np.inf)))
