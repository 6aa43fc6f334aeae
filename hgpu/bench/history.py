"""How much a thing differs from itself: the noise band that comparisons of like with like have shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hgpu.artifacts.payloads.comparison import ComparisonPayload, ToleranceSource, Verdict
from hgpu.bench.metrics import Metric

ENOUGH = 5  # comparisons of like with like before they say anything
QUANTILE = 0.95  # of the changes they showed
LIMIT = 2.0  # a tolerance is never widened beyond this many times itself


@dataclass(frozen=True, slots=True)
class Tolerance:
    """By how much a metric may move, and who says so."""

    value: float
    source: ToleranceSource


@dataclass(frozen=True, slots=True)
class History:
    """Changes that A/A comparisons with the same comparability showed, by point and metric."""

    comparisons: int
    changes: Mapping[tuple[str, str], Sequence[float]]


NO_HISTORY = History(0, {})


def history_of(past: Sequence[ComparisonPayload], comparability: Mapping[str, str]) -> History:
    """Collect what A/A comparisons showed that have these keys in common, all of them, and differ in none."""
    chosen = [
        row
        for row in past
        if row.like_with_like
        and not row.mismatches
        and row.verdict is not Verdict.INVALID
        and row.comparability == dict(comparability)
    ]
    changes: dict[tuple[str, str], list[float]] = {}
    for payload in chosen:
        for row in payload.rows:
            if row.change is not None:
                changes.setdefault((row.point, row.metric), []).append(abs(row.change))
    return History(len(chosen), changes)


def tolerance_of(metric: Metric, point: str, given: Mapping[str, float], history: History) -> Tolerance:
    """Return the user's tolerance, or the default widened to the noise band, within LIMIT times itself."""
    if metric.name in given:
        return Tolerance(given[metric.name], ToleranceSource.GIVEN)
    seen = history.changes.get((point, metric.name), ())
    band = float(np.quantile(seen, QUANTILE)) if len(seen) >= ENOUGH else 0.0
    if band <= metric.tolerance:
        return Tolerance(metric.tolerance, ToleranceSource.DEFAULT)
    return Tolerance(min(band, LIMIT * metric.tolerance), ToleranceSource.HISTORY)
