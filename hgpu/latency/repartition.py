"""When to leave the split that runs for another one, and why that never swings back and forth.

Predictions move with every step though the load doesn't. A split is therefore left only for a gain beyond a
margin h, and the goal changes only across a band of KV use. Held and wanted are the goal's two phases, B the
bound of the held one (`partition_choice`). Of the running split s:

1. s breaks the bound by more than the margin, `held(s) > (1 + h) · B`. It is left if some split keeps the
   bound or, where an objective in seconds leaves none, if the best one is better by more than the margin,
   `held(s) > (1 + h) · min held`.
2. Else, some split that keeps the bound with room, `held(c) ≤ B / (1 + h)`, is faster by more than the
   margin, `(1 + h) · wanted(c) < wanted(s)`.

Both go to the split that `partition_choice.choose` names.

**At most one switch.** Let load and goal be constant, and each predicted time off by a factor in
[1/(1 + ε), 1 + ε], anew at each look and for each split. If (1 + ε)⁴ ≤ 1 + h, the split changes at most once.

Proof. Write x₁ for what is predicted at the first switch, to c, and x₂ for a later look. For each split,
x₂ ≤ (1 + ε)² x₁ and the other way round; so too for min held, so for B, which is a multiple of it or
constant or the lesser of the two. Hence (A) held(c')/B changes by (1 + ε)⁴ at most, that is by 1 + h at most;
and (B) if x₁(c) ≤ x₁(c') then x₂(c) ≤ (1 + ε)⁴ x₂(c') ≤ (1 + h) x₂(c').
Let some split keep the bound at the first switch. Then c did, so by (A) held₂(c) ≤ (1 + h) · B₂, and rule 1
doesn't apply. If rule 2 does, some c' has held₂(c') ≤ B₂/(1 + h). By (A) c' kept the bound at the first
switch, so wanted₁(c) ≤ wanted₁(c') as c was chosen, and by (B) c' isn't faster by more than the margin: a
contradiction.
Let no split have kept it. Then held₁(c) was the least, and by (B) held₂(c) ≤ (1 + h) · held₂(c') for every
c'. So c is never worse than the best by more than the margin, nor, if some c' has held₂(c') ≤ B₂, over the
bound by more than that: rule 1 doesn't apply. Rule 2 asks for held₂(c') ≤ B₂/(1 + h), so that by (A) c' would
have kept the bound at the first switch: a contradiction. ∎

**Noise of the load.** If instead every work of the load (FLOPs and bytes) is off by a factor in
[1/(1 + η), 1 + η], the times of `partition` are off by (1 + η)³ at most, so (1 + η)¹² ≤ 1 + h is enough. For
each class's time is the longer of two that are proportional to a work and moves by 1 + η, but decode
attention's: the bandwidth that is left to it depends on the load too. Its memory time is

    m_d / B_dec = 1 / (B · [(1 − κ)/m_d + κ · P/(m_d + m_1) + κ · (1 − P)/(m_d + m_2)])

where each reciprocal of bytes moves by 1 + η, and P and 1 − P, each a ratio of times, by (1 + η)².

**At most one change of goal.** Let KV use be constant and seen with an error of e at most. If 2e is less than
the band, the goal changes at most once: what is seen at or above its upper edge is truly no more than e
below, so it is never seen 2e below, at the lower edge. So a constant noisy load switches at most twice, once
for each goal.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from hgpu.core.errors import InputError
from hgpu.core.partition import Split
from hgpu.latency.partition import PhaseTimes
from hgpu.latency.partition_choice import ChoiceOptions, Goal, Unkept, best, bound_s, phase_s, unkept_at


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """The margin h of a switch, and the band of KV use (parts of the cache) about the change of goal."""

    margin: float = 0.05
    kv_upper: float = 0.70
    kv_lower: float = 0.65

    def __post_init__(self) -> None:
        if not 0 <= self.margin < float("inf"):
            raise InputError(f"a margin of {self.margin:g} is none", "it is a relative gain, 0 or more")
        if not 0 <= self.kv_lower <= self.kv_upper <= 1:
            raise InputError(
                f"KV use from {self.kv_lower:g} to {self.kv_upper:g} is no band", "0 ≤ lower ≤ upper ≤ 1"
            )

    @property
    def tolerated_time_noise(self) -> float:
        """ε, the relative error of predicted times up to which a constant load can't oscillate."""
        return math.pow(1.0 + self.margin, 1 / 4) - 1.0

    @property
    def tolerated_load_noise(self) -> float:
        """η, the relative error of the load's FLOPs and bytes up to which it can't."""
        return math.pow(1.0 + self.margin, 1 / 12) - 1.0


class Reason(StrEnum):
    """Why a split was left."""

    OVER_BOUND = "the constrained phase was over its bound"
    GAIN = "another split is faster by more than the margin"


@dataclass(frozen=True, slots=True)
class Running:
    """The split that runs, and the goal that it was judged by."""

    split: Split
    goal: Goal = Goal.PREFILL


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the load decided: what runs from now on, why if it is another split, what isn't kept."""

    running: Running
    reason: Reason | None
    unkept: tuple[Unkept, ...]


def repartition(
    running: Running, times: PhaseTimes, kv_use: float, options: ChoiceOptions, hysteresis: Hysteresis
) -> Look:
    """Return what to run for a load, given what runs.

    `times` are the predictions for the load, `kv_use` is the used part of the KV cache. `unkept` holds the
    objectives that the split misses that runs from now on. Raises InputError where the running split isn't
    among those of `times`, or the margin leaves no room within the slack.
    """
    _check(times, running.split, kv_use, options, hysteresis)
    running = replace(running, goal=next_goal(running.goal, kv_use, hysteresis))
    reason = _reason(running, times, options, hysteresis.margin)
    if reason is not None:
        running = replace(running, split=times.splits[best(times, running.goal, options)])
    return Look(running, reason, unkept_at(times, times.splits.index(running.split), options))


def next_goal(goal: Goal, kv_use: float, hysteresis: Hysteresis) -> Goal:
    """Return the goal for a KV use: decode from the band's upper edge, prefill below its lower edge."""
    if kv_use >= hysteresis.kv_upper:
        return Goal.DECODE
    return Goal.PREFILL if kv_use < hysteresis.kv_lower else goal


def _reason(running: Running, times: PhaseTimes, options: ChoiceOptions, margin: float) -> Reason | None:
    held, wanted = phase_s(times, running.goal.other), phase_s(times, running.goal)
    bound = bound_s(times, running.goal, options)
    now = times.splits.index(running.split)
    least, more = held.min(), 1.0 + margin
    if held[now] > more * bound:
        return Reason.OVER_BOUND if least <= bound or held[now] > more * least else None
    roomy = wanted[held * more <= bound]
    return Reason.GAIN if roomy.size and more * roomy.min() < wanted[now] else None


def _check(
    times: PhaseTimes, split: Split, kv_use: float, options: ChoiceOptions, hysteresis: Hysteresis
) -> None:
    if split not in times.splits:
        raise InputError(
            f"the running split {split} isn't one of the lattice's",
            f"it has {times.splits[0]} to {times.splits[-1]}",
            "start from one of them, as `choose` returns it",
        )
    if not 0 <= kv_use <= 1:
        raise InputError(f"a KV use of {kv_use:g} is none", "it is the used part of the cache, 0 to 1")
    least = min(options.prefill_slack, options.decode_slack)
    if 1.0 + hysteresis.margin > least:
        raise InputError(
            f"a margin of {hysteresis.margin:g} leaves no room within a slack of {least:g}",
            "a split is left for one that keeps the bound with the margin to spare, and none might",
            f"use a margin of {least - 1:g} at most, or a larger slack",
        )
