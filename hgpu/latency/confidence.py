"""How far a latency model may be wrong, and a model that is as slow as it may be.

An exact optimum sits where a small error breaks it (arXiv 2604.07472), so plans are made with steps
that are slower than predicted by

    1 + z(confidence) · σ

with z the normal quantile and σ the model's relative error. Of a fit, σ is what its cross-validated
step errors say: the larger of median/0.674 and 90th percentile/1.645, the ratios of a normal. All steps
may be off in the same direction, so that averaging over many of them is no comfort. Of an estimate
nobody knows its error: ASSUMED_ERROR is taken.
"""

from dataclasses import replace
from statistics import NormalDist

from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel, StepModel

ASSUMED_ERROR = 0.12  # estimates against public measurements: TPOT 4 to 10 % off (benchmarks/silicon)
_MEDIAN, _P90 = 0.6745, 1.6449  # of |x| for a standard normal x


def relative_error(latency: LatencyModel) -> float:
    """Return σ, the relative error of step times."""
    if latency.provenance is Provenance.ESTIMATED:
        return ASSUMED_ERROR
    return max(latency.median_error / _MEDIAN, latency.p90_error / _P90)


def safety_factor(latency: LatencyModel, confidence: float) -> float:
    """Return by how much steps may be slower than predicted, at a one-sided confidence of 0.5 to 1."""
    return 1.0 + NormalDist().inv_cdf(confidence) * relative_error(latency)


def slower(latency: LatencyModel, factor: float) -> LatencyModel:
    """Return the model with all its seconds multiplied."""
    step = latency.step
    seconds = [name for name in StepModel.__slots__ if name.endswith("_s") and name != "step_s"]
    copies = step.copies and step.copies.slower(factor)
    scaled = replace(step, **{name: getattr(step, name) * factor for name in seconds}, copies=copies)
    return replace(latency, step=scaled, request_s=latency.request_s * factor)
