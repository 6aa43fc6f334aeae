"""What every profiler returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hgpu.core.provenance import Provenance
from hgpu.profilers.samples import Sample
from hgpu.profilers.telemetry_summary import RunTelemetry


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """Step samples of one model on one operating point, and what the engine said of itself.

    `problems` lists what makes the measurement doubtful; `assumptions` the figures that a
    computed profile rests on; `telemetry` what the cards did in each run, where they were read.
    """

    profiler: str
    provenance: Provenance
    samples: tuple[Sample, ...]
    kv_capacity_tokens: int
    engine: str = ""
    driver: str = ""
    machine: str = ""
    seconds: float = 0.0
    problems: tuple[str, ...] = ()
    assumptions: Mapping[str, float] = field(default_factory=dict)
    telemetry: tuple[RunTelemetry, ...] = ()
