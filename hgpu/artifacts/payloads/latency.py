"""Payload of a latency model."""

from hgpu.artifacts.manifest import Strict
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.step import LatencyModel


class PhaseError(Strict):
    """Cross-validated relative error of one phase."""

    phase: str
    samples: int
    median: float
    p90: float


class LatencyPayload(Strict):
    """A fitted step model for one model on one operating point."""

    model: ModelSpec
    point: OperatingPoint
    latency: LatencyModel
    errors: list[PhaseError]
    largest_step_tokens: float
    largest_step_context_tokens: float
