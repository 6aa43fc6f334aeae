"""Charts of step samples: what was measured, how a fit meets it, and what is left over."""

import math
from collections.abc import Sequence

import numpy as np

from hgpu.core.step import StepModel
from hgpu.profilers.samples import Sample
from hgpu.report.html.blocks import Chart, Table
from hgpu.report.html.draw import Series, scatter

PHASES = ("prefill", "decode", "mixed")
MOST_POINTS = 800
MOST_ROWS = 300


def steps_chart(samples: Sequence[Sample], source: str) -> Chart:
    """Draw the seconds of each step against its tokens."""
    shown, note = _thinned(samples, MOST_POINTS, "drawn")
    series = [
        Series(phase, [s.batch.tokens for s in mine], [s.step_s * 1e3 for s in mine])
        for phase, mine in _by_phase(shown)
    ]
    listed, left_out = _thinned(samples, MOST_ROWS, "listed")
    rows = [[*_batch(s), f"{s.step_s * 1e3:.3f}", str(s.repeats), f"{s.spread:.1%}"] for s in listed]
    data = Table("steps", [*BATCH, ">step, ms", ">repeats", ">spread"], rows, source, left_out)
    drawn = scatter(series, "tokens of the step", "step, ms")
    return Chart("Time of a step against its tokens, ms", drawn, data, source, note)


def fit_chart(samples: Sequence[Sample], step: StepModel, source: str, measured: str) -> Chart:
    """Draw fitted against measured; on the diagonal they agree. `measured` is the samples' provenance."""
    shown, note = _thinned(samples, MOST_POINTS, "drawn")
    series = [
        Series(f"{phase}", [s.step_s * 1e3 for s in mine], [step.step_s(s.batch) * 1e3 for s in mine])
        for phase, mine in _by_phase(shown)
    ]
    listed, left_out = _thinned(samples, MOST_ROWS, "listed")
    rows = [
        [*_batch(s), f"{s.step_s * 1e3:.3f}", f"{step.step_s(s.batch) * 1e3:.3f}", f"{_off(step, s):+.1%}"]
        for s in listed
    ]
    heads = [*BATCH, f">{measured}, ms", ">fitted, ms", ">off by"]
    drawn = scatter(series, f"step, {measured}, ms", "step, fitted, ms", "diagonal")
    data = Table("fitted and measured", heads, rows, source, left_out)
    return Chart(f"Fitted against {measured} steps, ms", drawn, data, source, note)


def residuals_chart(samples: Sequence[Sample], step: StepModel, source: str) -> Chart:
    """Draw by how much the fit is off against the tokens of the step; the data is by powers of two."""
    shown, note = _thinned(samples, MOST_POINTS, "drawn")
    series = [
        Series(phase, [s.batch.tokens for s in mine], [100 * _off(step, s) for s in mine])
        for phase, mine in _by_phase(shown)
    ]
    drawn = scatter(series, "tokens of the step", "fitted off by, %", "zero", "linear")
    sizes = sorted({_size(s) for s in samples})
    rows = [_left_over(size, [_off(step, s) for s in samples if _size(s) == size]) for size in sizes]
    heads = ["tokens of the step", ">steps", ">off by, median", ">10 % below", ">10 % above"]
    data = Table("residuals by step size", heads, rows, source)
    return Chart("Residuals by step size, %", drawn, data, source, note)


BATCH = ("phase", ">prefill tokens", ">decode sequences", ">context tokens")


def _batch(sample: Sample) -> list[str]:
    batch = sample.batch
    context = batch.prefill_context_tokens + batch.decode_context_tokens
    return [batch.phase, f"{batch.prefill_tokens:,.0f}", f"{batch.decode_seqs:,.0f}", f"{context:,.0f}"]


def _off(step: StepModel, sample: Sample) -> float:
    return step.step_s(sample.batch) / sample.step_s - 1


def _size(sample: Sample) -> int:
    """Return the power of two that the step's tokens reach up to."""
    return 1 << math.ceil(math.log2(max(sample.batch.tokens, 1.0)))


def _left_over(size: int, off: Sequence[float]) -> list[str]:
    low, middle, high = np.quantile(off, (0.1, 0.5, 0.9))
    return [f"{size // 2 + 1}-{size}" if size > 2 else str(size), f"{len(off):,}"] + [
        f"{value:+.1%}" for value in (middle, low, high)
    ]


def _by_phase(samples: Sequence[Sample]) -> list[tuple[str, list[Sample]]]:
    groups = [(phase, [s for s in samples if s.batch.phase == phase]) for phase in PHASES]
    return [(phase, mine) for phase, mine in groups if mine]


def _thinned(samples: Sequence[Sample], most: int, done: str) -> tuple[list[Sample], str]:
    """Return at most `most` samples, spread evenly over sizes and times, and what was left out."""
    ordered = sorted(samples, key=lambda s: (PHASES.index(s.batch.phase), s.batch.tokens, s.step_s))
    if len(ordered) <= most:
        return ordered, ""
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    return [
        ordered[place] for place in places
    ], f"{most} of {len(ordered):,} steps are {done}, evenly by size."
