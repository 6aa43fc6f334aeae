"""From rows to one verdict, and from that to an exit code."""

from collections.abc import Mapping, Sequence

from hgpu.artifacts.payloads.comparison import ComparedRow, KeyMismatch, Verdict
from hgpu.bench.comparability import Common

EXIT_CODES: Mapping[Verdict, int] = {
    Verdict.OK: 0,
    Verdict.IMPROVED: 0,
    Verdict.REGRESSED: 3,
    Verdict.INVALID: 4,
    Verdict.INCONCLUSIVE: 5,
}
WORST_FIRST = (Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.IMPROVED)


def refusals(arms: Common, doubts: Sequence[str] = ()) -> list[str]:
    """Return why two arms can't be compared: what isn't to be believed, then what differs."""
    return [*doubts, *(_difference(row) for row in arms.refused)]


def summary(rows: Sequence[ComparedRow], refused: Sequence[str]) -> tuple[Verdict, list[str]]:
    """Return the verdict of confirmatory rows and the reasons for it, worst first.

    A single regressed row is a regression; otherwise a single one that may be worse leaves the whole open.
    One that may only be better than the tolerance, or within, doesn't.
    """
    deciding = [row for row in rows if row.confirmatory]
    if refused or not deciding:
        return Verdict.INVALID, list(refused) or ["nothing to compare: the arms share no point or metric"]
    found = {row.verdict for row in deciding if row.verdict is not Verdict.INCONCLUSIVE or may_be_worse(row)}
    verdict = next((worst for worst in WORST_FIRST if worst in found), Verdict.OK)
    return verdict, [_say(row) for kind in WORST_FIRST for row in deciding if row.verdict is kind]


def may_be_worse(row: ComparedRow) -> bool:
    """Tell whether a row's interval reaches beyond the tolerance on the bad side, or there is none."""
    if row.low is None or row.high is None:
        return True
    return row.high > row.tolerance if row.lower_is_better else row.low < -row.tolerance


def _difference(row: KeyMismatch) -> str:
    base, head = (" and ".join(value or "unknown" for value in side) for side in (row.base, row.head))
    return f"{row.key} differs: {base} against {head}; --allow {row.key} accepts it"


def _say(row: ComparedRow) -> str:
    name = f"{row.metric} of {row.point}" if row.point else row.metric
    return f"{name} {row.verdict}" + (f": {row.reason}" if row.reason else "")
