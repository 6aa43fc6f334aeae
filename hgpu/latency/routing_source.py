"""The routing that a spec names, ready to replay."""

from dataclasses import replace
from pathlib import Path

from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.payloads.routing import RoutingPayload
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact
from hgpu.core.experts import Link
from hgpu.latency.expert_loads import Routing, routing_of
from hgpu.latency.routing_artifact import trace_of


def routing_behind(root: Path, profile: Artifact[ProfilePayload]) -> Routing | None:
    """Return the routing that a profile's expert cache was made out by; None where it has none."""
    digests = [row.digest for row in profile.manifest.inputs if row.kind == "routing"]
    return named_routing(root, digests[0]) if digests else None


def named_routing(root: Path, ref: str | None) -> Routing | None:
    """Return the routing of an artifact (path, digest, @ref or latest); None where none is named."""
    if ref is None:
        return None
    artifact: Artifact[RoutingPayload] = resolve(root, ref, "routing")
    copies, gpu = artifact.payload.copies, artifact.manifest.environment.gpu
    measured = (gpu, copies.bytes_per_s) if gpu and copies.link is Link.PINNED else None
    routing = routing_of(trace_of(artifact), f"routing {artifact.short}")
    return replace(routing, inputs=(artifact.as_input("routing"),), link=measured)
