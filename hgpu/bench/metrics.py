"""What a comparison of load tests looks at, and by how much each may move.

Tolerances: goodput 3 %, medians 5 %, 99th percentiles 10 %, shares 1 point. Confirmatory metrics decide the
verdict; the others are shown. Where a run can't have a metric (no objectives, too few requests for the
percentile), it says why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hgpu.artifacts.payloads.comparison import Effect
from hgpu.bench.resampling import Floats, resampled_mean, resampled_quantile, resampled_share
from hgpu.bench.runs import Run
from hgpu.core.errors import UnknownName

Redraw = Callable[[int, np.random.Generator], Floats]
Pick = Callable[[Run], Floats]
ABSENT = "no request has it, or the runs have no objectives"


@dataclass(frozen=True, slots=True)
class Statistic:
    """A run's value, and how to draw what it would be with its requests drawn again."""

    value: float
    redraw: Redraw


@dataclass(frozen=True, slots=True)
class Metric:
    """`of` is a run's statistic, or why it has none."""

    name: str
    unit: str
    lower_is_better: bool
    effect: Effect
    tolerance: float
    confirmatory: bool
    of: Callable[[Run], Statistic | str]


def _quantile(pick: Pick, q: float, run: Run) -> Statistic | str:
    values, needed = pick(run), round(1.0 / (1.0 - q))
    if not len(values):
        return ABSENT
    if len(values) < needed:
        return f"p{q * 100:g} needs {needed} requests a run, there are {len(values)}"
    return Statistic(
        float(np.quantile(values, q)), lambda draws, rng: resampled_quantile(values, q, draws, rng)
    )


def _mean(pick: Pick, run: Run) -> Statistic | str:
    values = pick(run)
    if not len(values):
        return ABSENT
    return Statistic(float(values.mean()), lambda draws, rng: resampled_mean(values, draws, rng))


def _share(count: Callable[[Run], int | None], run: Run) -> Statistic | str:
    hits, n = count(run), run.requests
    if hits is None or not n:
        return ABSENT
    return Statistic(hits / n, lambda draws, rng: resampled_share(hits, n, draws, rng))


def _goodput(run: Run) -> Statistic | str:
    share = _share(lambda r: r.kept, run)
    if isinstance(share, str):
        return share
    rate_rps = run.requests / run.duration_s
    return Statistic(share.value * rate_rps, lambda draws, rng: share.redraw(draws, rng) * rate_rps)


def _throughput(run: Run) -> Statistic | str:
    """The run's own figure: it hangs on how requests overlapped, so that redrawing them says nothing."""
    return Statistic(run.output_tok_per_s, lambda draws, _: np.full(draws, run.output_tok_per_s))


def _latency(name: str, pick: Pick, confirmatory: bool) -> tuple[Metric, ...]:
    made = partial(Metric, unit="s", lower_is_better=True, effect=Effect.RATIO)
    return (
        made(f"{name}_p50", tolerance=0.05, confirmatory=confirmatory, of=partial(_quantile, pick, 0.5)),
        made(f"{name}_p99", tolerance=0.10, confirmatory=confirmatory, of=partial(_quantile, pick, 0.99)),
        made(f"{name}_mean", tolerance=0.05, confirmatory=False, of=partial(_mean, pick)),
    )


METRICS = {
    metric.name: metric
    for metric in (
        *_latency("ttft", lambda run: run.ttft_s, True),
        *_latency("tpot", lambda run: run.tpot_s, True),
        Metric("goodput", "requests/s", False, Effect.RATIO, 0.03, True, _goodput),
        Metric("attainment", "share", False, Effect.POINTS, 0.01, True, partial(_share, lambda r: r.kept)),
        Metric("failed", "share", True, Effect.POINTS, 0.01, True, partial(_share, lambda r: r.failed)),
        *_latency("e2e", lambda run: run.e2e_s, False),
        Metric("output_throughput", "tokens/s", False, Effect.RATIO, 0.03, False, _throughput),
    )
}


def metric_of(name: str) -> Metric:
    """Return the metric called `name`, or raise UnknownName."""
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]


def statistics_of(metric: Metric, runs: Sequence[Run]) -> list[Statistic] | str:
    """Return each run's statistic, or the first reason why one has none."""
    found = [metric.of(run) for run in runs]
    missing = next((row for row in found if isinstance(row, str)), None)
    return missing if missing is not None else [row for row in found if isinstance(row, Statistic)]
