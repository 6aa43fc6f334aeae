"""What has no noise is compared exactly: plans, fits and simulations.

A fact that got worse by any amount has regressed, and needs no GPU and no second run to say so. `SLACK` is
what sums in another order come to, not a tolerance.
"""

from collections.abc import Sequence
from typing import Any

from hgpu.artifacts.payloads.comparison import (
    Arm,
    ComparedRow,
    ComparisonPayload,
    Effect,
    ToleranceSource,
    Verdict,
)
from hgpu.artifacts.store import Artifact
from hgpu.bench.comparability import common
from hgpu.bench.doubts import doubts
from hgpu.bench.facts import EXACT, Fact
from hgpu.bench.judging import GateOptions
from hgpu.bench.verdicts import refusals, summary
from hgpu.core.errors import InputError

SLACK = 1e-6  # of the larger value


def compare_exactly(base: Artifact[Any], head: Artifact[Any], options: GateOptions) -> ComparisonPayload:
    """Compare two artifacts of a deterministic kind, fact by fact.

    Raises InputError for options that only noisy measurements have.
    """
    if options.tolerances or options.confirmatory or options.like_with_like:
        kind = base.manifest.kind
        raise InputError(
            f"a {kind} is compared exactly", "tolerances, metrics and --aa are of load tests", "drop them"
        )
    exact = EXACT[base.manifest.kind]
    arms = common([exact.keys(base)], [exact.keys(head)], options.allow)
    refused = refusals(arms, [reason for artifact in (base, head) for reason in doubts(artifact)])
    rows = [] if refused else _rows(exact.facts(base), exact.facts(head))
    verdict, reasons = summary(rows, refused)
    return ComparisonPayload(
        compares=base.manifest.kind,
        base=Arm(digests=[base.digest], runs={}),
        head=Arm(digests=[head.digest], runs={}),
        comparability=arms.shared,
        mismatches=arms.mismatches,
        unknown=arms.unknown,
        like_with_like=False,
        confidence=1.0,
        resamples=0,
        seed=0,
        history=0,
        rows=rows,
        verdict=verdict,
        reasons=reasons,
    )


def _rows(base: Sequence[Fact], head: Sequence[Fact]) -> list[ComparedRow]:
    """Judge each fact of either side. One that only changes is open, or explained by a better figure."""
    left, right = ({(fact.case, fact.name): fact for fact in side} for side in (base, head))
    rows = [_row(left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])]
    if any(row.verdict is Verdict.IMPROVED for row in rows):
        explained = {"verdict": Verdict.OK, "reason": "another one, as a better figure needs"}
        return [row.model_copy(update=explained) if _only_changed(row) else row for row in rows]
    return rows


def _only_changed(row: ComparedRow) -> bool:
    return row.verdict is Verdict.INCONCLUSIVE and row.base is not None and row.head is not None


def _row(base: Fact | None, head: Fact | None) -> ComparedRow:
    fact = base or head
    assert fact is not None  # a key comes from one of them
    left, right = (side.value if side else None for side in (base, head))
    verdict, reason = _judge(left, right, fact.lower_is_better)
    numbers = isinstance(left, float) and isinstance(right, float)
    return ComparedRow(
        point=fact.case,
        metric=fact.name,
        unit=fact.unit,
        lower_is_better=bool(fact.lower_is_better),
        confirmatory=True,
        effect=Effect.EXACT,
        base=left,
        head=right,
        change=right - left if numbers else None,  # type: ignore[operator]
        low=None,
        high=None,
        tolerance=0.0,
        tolerance_source=ToleranceSource.DEFAULT,
        p=None,
        verdict=verdict,
        reason=reason,
        more_runs=None,
    )


def _judge(
    base: float | str | None, head: float | str | None, lower_is_better: bool | None
) -> tuple[Verdict, str]:
    if base == head:
        return Verdict.OK, ""
    if base is None or head is None:
        return Verdict.INCONCLUSIVE, "only one side has it"
    if isinstance(base, str) or isinstance(head, str) or lower_is_better is None:
        return Verdict.INCONCLUSIVE, "it changed: look, and bless the new one if it is right"
    if abs(head - base) <= SLACK * max(abs(base), abs(head)):
        return Verdict.OK, ""
    return (Verdict.REGRESSED if (head > base) == lower_is_better else Verdict.IMPROVED), ""
