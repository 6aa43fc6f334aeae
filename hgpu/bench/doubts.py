"""Why an artifact isn't to be believed, by its own account."""

from typing import Any

from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.comparison import ComparisonPayload, Verdict
from hgpu.artifacts.payloads.load import LoadPayload
from hgpu.artifacts.store import Artifact


def doubts(artifact: Artifact[Any]) -> list[str]:
    """Return the reasons against an artifact and each point of a load test; none where it is valid."""
    reasons = _reasons(artifact.manifest.validity)
    payload = artifact.payload
    if isinstance(payload, LoadPayload):
        points = [(point.name, reason) for point in payload.points for reason in _reasons(point.validity)]
        reasons += [f"{name}: {reason}" for name, reason in points]
        reasons += [] if payload.points else ["it holds no point"]
    if isinstance(payload, ComparisonPayload) and payload.verdict is Verdict.INVALID:
        reasons += payload.reasons
    return [f"{artifact.short}: {reason}" for reason in dict.fromkeys(reasons)]


def _reasons(validity: Validity) -> list[str]:
    return [] if validity.valid else list(validity.reasons) or ["not valid"]
