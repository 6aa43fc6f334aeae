"""Payload of a comparison: two arms of artifacts, and whether the second is worse."""

from enum import StrEnum

from hgpu.artifacts.manifest import Strict


class Verdict(StrEnum):
    """What a comparison, or one row of it, says."""

    OK = "ok"  # within tolerance
    IMPROVED = "improved"  # better by more than the tolerance
    REGRESSED = "regressed"  # worse by more than the tolerance
    INCONCLUSIVE = "inconclusive"  # the runs don't tell
    INVALID = "invalid"  # not to be believed, or not to be compared


class Effect(StrEnum):
    """How a change is told."""

    RATIO = "ratio"  # head/base − 1
    POINTS = "points"  # head − base, of a share
    EXACT = "exact"  # head − base of what has no noise; none where it isn't a number


class ToleranceSource(StrEnum):
    """Where a tolerance comes from."""

    DEFAULT = "default"
    GIVEN = "given"
    HISTORY = "history"  # widened by what comparisons of like with like showed


class ComparedRow(Strict):
    """One metric of one point of load, or one fact of a deterministic artifact.

    `base` and `head` are means over the runs of an arm, in `unit`. `low` and `high` bound the change at the
    payload's confidence. `p` is one-sided, that the change is beyond the tolerance, after Holm's correction
    where the row is `confirmatory`; only such rows count for the verdict. `more_runs` is about how
    many runs an arm are missing for a verdict; None where that is unknown or beyond reach.
    """

    point: str
    metric: str
    unit: str
    lower_is_better: bool
    confirmatory: bool
    effect: Effect
    base: float | str | None
    head: float | str | None
    change: float | None
    low: float | None
    high: float | None
    tolerance: float
    tolerance_source: ToleranceSource
    p: float | None
    verdict: Verdict
    reason: str
    more_runs: int | None


class KeyMismatch(Strict):
    """Something that should be the same in both arms and isn't; `allowed` where the user accepts it."""

    key: str
    base: list[str]
    head: list[str]
    allowed: bool


class Arm(Strict):
    """The artifacts of one side by digest, and how many runs they hold of each point."""

    digests: list[str]
    runs: dict[str, int]


class ComparisonPayload(Strict):
    """Base against head. `comparability` is what both arms have in common, by key.

    `like_with_like` marks a comparison of a thing with itself (A/A): its changes are noise, and later
    comparisons with the same comparability learn their noise band from it. `unknown` are the keys that no
    run tells. `reasons` say why the verdict is what it is, worst first.
    """

    compares: str
    base: Arm
    head: Arm
    comparability: dict[str, str]
    mismatches: list[KeyMismatch]
    unknown: list[str]
    like_with_like: bool
    confidence: float
    resamples: int
    seed: int
    history: int
    rows: list[ComparedRow]
    verdict: Verdict
    reasons: list[str]
