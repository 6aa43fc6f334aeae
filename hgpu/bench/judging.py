"""Is a metric worse? The verdict of each metric of each point of load, over two arms of runs.

A metric has *regressed* (or *improved*) where the whole interval of its change is beyond the tolerance, after
Holm's correction over the confirmatory metrics; it is *ok* where the whole interval is within: all metrics
must be, so that needs no correction; else the runs don't tell. The interval has 90 %, so that either claim is
wrong in at most 5 % (two one-sided tests, Schuirmann 1987). The rules are those of asv (significance and
size of an effect), benchstat (few samples are refused) and criterion (a noise threshold).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hgpu.artifacts.payloads.comparison import ComparedRow, Effect, Verdict
from hgpu.bench.history import NO_HISTORY, History, Tolerance, tolerance_of
from hgpu.bench.metrics import ABSENT, METRICS, Metric, Statistic, statistics_of
from hgpu.bench.runs import Run
from hgpu.bench.statistics import ArmMean, Difference, arm_mean, difference, holm, more_runs
from hgpu.bench.verdicts import may_be_worse

FEWEST_RUNS = 3  # an arm; fewer say nothing of how runs differ
REDRAWS = 500  # of each run's requests, to pick from


@dataclass(frozen=True, slots=True)
class GateOptions:
    """How to compare. `confirmatory` names the metrics that decide, empty for the usual ones."""

    allow: Collection[str] = ()
    tolerances: Mapping[str, float] = field(default_factory=dict)
    confirmatory: Collection[str] = ()
    like_with_like: bool = False
    confidence: float = 0.90
    resamples: int = 4000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A row before its verdict: the difference, or why there is none."""

    row: ComparedRow
    found: Difference | None
    runs: int


def compare_runs(
    base: Mapping[str, Sequence[Run]],
    head: Mapping[str, Sequence[Run]],
    options: GateOptions,
    history: History = NO_HISTORY,
) -> list[ComparedRow]:
    """Judge every metric of every point that both arms have. One seed, one answer."""
    rng = np.random.default_rng(options.seed)
    judged = [
        _judged(point, metric, base[point], head[point], options, history, rng)
        for point in base
        if point in head
        for metric in METRICS.values()
    ]
    return _verdicts([row for row in judged if row is not None], options.confidence)


def _judged(
    point: str,
    metric: Metric,
    base: Sequence[Run],
    head: Sequence[Run],
    options: GateOptions,
    history: History,
    rng: np.random.Generator,
) -> Judged | None:
    left, right = statistics_of(metric, base), statistics_of(metric, head)
    if left == right == ABSENT and metric.name not in options.confirmatory:
        return None
    tolerance = tolerance_of(metric, point, options.tolerances, history)
    decides = metric.name in options.confirmatory if options.confirmatory else metric.confirmatory
    row = _row(point, metric, tolerance, decides)
    if isinstance(left, str) or isinstance(right, str):
        return Judged(row.model_copy(update={"reason": left if isinstance(left, str) else right}), None, 0)
    means = [_mean(arm, options.resamples, rng) for arm in (left, right)]
    row = row.model_copy(update={"base": means[0].mean, "head": means[1].mean})
    if metric.effect is Effect.RATIO and means[0].mean <= 0.0:
        return Judged(row.model_copy(update={"reason": "base is zero: there is no ratio to it"}), None, 0)
    found = difference(means[0], means[1], metric.effect)
    return Judged(row.model_copy(update={"change": found.change}), found, min(len(base), len(head)))


def _mean(statistics: Sequence[Statistic], resamples: int, rng: np.random.Generator) -> ArmMean:
    redrawn = [row.redraw(REDRAWS, rng) for row in statistics]
    return arm_mean([row.value for row in statistics], redrawn, resamples, rng)


def _verdicts(judged: Sequence[Judged], confidence: float) -> list[ComparedRow]:
    """Give every row its verdict; Holm's correction is over confirmatory rows that chance has a part in."""
    ps = [_p(row) for row in judged]
    family = [index for index, row in enumerate(judged) if row.row.confirmatory and _by_chance(row)]
    corrected = holm([p for index in family if (p := ps[index]) is not None])
    for index, p in zip(family, corrected, strict=True):
        ps[index] = p
    return [_verdict(row, p, confidence, len(family)) for row, p in zip(judged, ps, strict=True)]


def _by_chance(judged: Judged) -> bool:
    return judged.found is not None and judged.runs >= FEWEST_RUNS and not judged.found.certain


def _p(judged: Judged) -> float | None:
    if judged.found is None or judged.runs < FEWEST_RUNS:
        return None
    return judged.found.p_beyond(judged.row.tolerance)


def _verdict(judged: Judged, p: float | None, confidence: float, family: int) -> ComparedRow:
    row, found = judged.row, judged.found
    if found is None:
        return row
    if p is None:
        missing = FEWEST_RUNS - judged.runs
        return row.model_copy(
            update={
                "reason": f"{judged.runs} run{'s' * (judged.runs > 1)} an arm: {FEWEST_RUNS} are the fewest",
                "more_runs": missing,
            }
        )
    low, high = found.interval(confidence)
    lower_end, upper_end = found.bounds(row.tolerance)
    outside = found.value < lower_end or found.value > upper_end
    update: dict[str, object] = {"low": low, "high": high, "p": p}
    if outside and p <= (1.0 - confidence) / 2.0:
        worse = (found.value > upper_end) == row.lower_is_better
        update["verdict"] = Verdict.REGRESSED if worse else Verdict.IMPROVED
    elif _within(low, high, row):
        update["verdict"] = Verdict.OK
    else:
        told = row.model_copy(update={"low": low, "high": high})
        update["reason"] = _doubt(found, told, confidence, family)
        update["more_runs"] = more_runs(found, row.tolerance, confidence, judged.runs)
    return row.model_copy(update=update)


def _within(low: float, high: float, row: ComparedRow) -> bool:
    return -row.tolerance <= low and high <= row.tolerance


def _doubt(found: Difference, row: ComparedRow, confidence: float, family: int) -> str:
    if found.p_beyond(row.tolerance) <= (1.0 - confidence) / 2.0:
        return f"beyond the tolerance, but not after correction for {family} metrics"
    if not may_be_worse(row):
        return "not worse; whether it is better isn't settled"
    return "the interval reaches over an end of the tolerance"


def _row(point: str, metric: Metric, tolerance: Tolerance, confirmatory: bool) -> ComparedRow:
    return ComparedRow(
        point=point,
        metric=metric.name,
        unit=metric.unit,
        lower_is_better=metric.lower_is_better,
        confirmatory=confirmatory,
        effect=metric.effect,
        base=None,
        head=None,
        change=None,
        low=None,
        high=None,
        tolerance=tolerance.value,
        tolerance_source=tolerance.source,
        p=None,
        verdict=Verdict.INCONCLUSIVE,
        reason="",
        more_runs=None,
    )
