"""Payload of a profile: what was measured, on what, and under which settings."""

from hgpu.artifacts.manifest import Strict
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.provenance import Provenance

SAMPLES_FILE = "samples.parquet"
TELEMETRY_FILE = "telemetry.json"  # only where cards were read


class ProfilePayload(Strict):
    """The step samples themselves lie in `samples.parquet`."""

    model: ModelSpec
    point: OperatingPoint
    profiler: str
    provenance: Provenance
    samples: int
    kv_capacity_tokens: int
    noise: float
    assumptions: dict[str, float]
