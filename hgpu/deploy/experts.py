"""Engines of mode `offload`: what their caches pin and prefetch by comes from the plan's routing trace."""

from pathlib import Path

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.artifacts.payloads.routing import RoutingPayload
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import InputError
from hgpu.core.experts import PINNING, ExpertCache, Prefetch
from hgpu.deploy.launch import Launch
from hgpu.latency.expert_hints import hints_of
from hgpu.latency.hints_file import save_hints
from hgpu.latency.routing_artifact import trace_of
from hgpu.runtime.vllm.expert_options import expert_args

_HINTS = "hints.npz"


def hints_path(folder: Path) -> Path:
    """Return where the hints of the deployment in `folder` are."""
    return folder / _HINTS


def write_hints(plan: Artifact[PlanPayload], root: Path, folder: Path) -> None:
    """Write what the routing that a plan was made by teaches its engines, where they need it.

    Raises InputError where the plan was made without one, and ArtifactError where it is gone.
    """
    needing = [row for row in plan.payload.allocation if row.point.experts and _needs(row.point.experts)]
    if not needing or hints_path(folder).exists():
        return
    digest = _routing_behind(plan, root)
    if digest is None:
        raise InputError(
            f"pool '{needing[0].pool}' pins or prefetches experts, and nothing says which",
            "the plan was made without a routing trace",
            "record one with `hgpu profile --mode offload`, name it in offload.routing, and plan again",
        )
    recorded: Artifact[RoutingPayload] = resolve(root, digest, "routing")
    trace = trace_of(recorded)
    save_hints(hints_of(trace, vocab=int(trace.tokens.max()) + 1), hints_path(folder))


def with_experts(launch: Launch, row: AllocationRow, folder: Path) -> Launch:
    """Return an engine's start with its expert cache, where it was planned with one."""
    cache = row.point.experts
    if cache is None:
        return launch
    words = expert_args(cache, hints_path(folder) if _needs(cache) else None)
    return Launch([*launch.command, *words], launch.environment)


def _needs(cache: ExpertCache) -> bool:
    return cache.policy in PINNING or cache.prefetch is Prefetch.TOKEN


def _routing_behind(plan: Artifact[PlanPayload], root: Path) -> str | None:
    """Return the digest of the routing that the latency models of a plan were made by."""
    fitted = [row.digest for row in plan.manifest.inputs if row.kind == "latency"]
    rows = [row for digest in fitted for row in resolve(root, digest, "latency").manifest.inputs]
    return next((row.digest for row in rows if row.kind == "routing"), None)
