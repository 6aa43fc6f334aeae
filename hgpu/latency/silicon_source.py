"""A latency model from measured kernel tables, kept as artifacts like any other."""

from pathlib import Path

from hgpu.artifacts.reuse import save_once
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import OperatingPoint
from hgpu.latency.select import LatencyArtifact, latency_draft, profile_draft
from hgpu.profilers.silicon import silicon


def silicon_artifact(root: Path, model: ModelSpec, source: str, point: OperatingPoint) -> LatencyArtifact:
    """Compose a point from kernel times, keep the profile and the fit, and return the fit.

    `source` is the folder, config or id that `model` was loaded from. Raises what
    `hgpu.profilers.silicon.silicon` raises.
    """
    result = silicon(model, source, resolve_gpu(point.gpu), point)
    profile = save_once(root, profile_draft(model, point, result, {}))
    return save_once(root, latency_draft(profile))
