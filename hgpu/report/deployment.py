"""Deployments in the terminal and as JSON."""

from collections.abc import Sequence
from typing import Any

from hgpu.artifacts.payloads.deployment import DeploymentPayload
from hgpu.artifacts.store import Artifact
from hgpu.deploy.driver import Deployed, DeploymentStatus
from hgpu.report.output import console, ms, table

_HEALTH = {True: "healthy", False: "not healthy", None: "not observed from here"}


def print_deployed(artifact: Artifact[DeploymentPayload], deployed: Deployed) -> None:
    """Print where the deployment answers, and the completion that it made."""
    state, completion = deployed.state, deployed.completion
    word = "is up" if deployed.changed else "was up already; nothing changed"
    out = console()
    out.print(f"[bold]{state.name}[/bold] {word}: {state.front_url}/v1", soft_wrap=True)
    if completion:
        out.print(
            f"first completion: {completion.tokens} tokens in {ms(completion.seconds)} ms, "
            f"first after {ms(completion.ttft_s)} ms",
            soft_wrap=True,
        )
    out.print(f"deployment {artifact.short}  {artifact.path}", soft_wrap=True)


def deployed_json(artifact: Artifact[DeploymentPayload], deployed: Deployed) -> dict[str, Any]:
    """Return the payload with where it answers now."""
    completion = deployed.completion
    return {
        **artifact.payload.model_dump(mode="json"),
        "digest": artifact.digest,
        "path": str(artifact.path),
        "front_url": deployed.state.front_url,
        "changed": deployed.changed,
        "completion": completion
        and {
            "tokens": completion.tokens,
            "ttft_s": completion.ttft_s,
            "seconds": completion.seconds,
        },
    }


def print_status(found: Sequence[DeploymentStatus], place: str) -> None:
    """Print each deployment, its processes and where it differs from its state."""
    out = console()
    if not found:
        out.print(f"nothing is deployed under {place}", markup=False)
    for row in found:
        out.print(
            f"[bold]{row.name}[/bold] {row.phase} on {row.target}: {row.front_url or 'no URL'}",
            soft_wrap=True,
        )
        slots = table("", "slot", "role", "pool", "runs as", "URL", "alive", "health")
        for slot in row.slots:
            alive = "alive" if slot.alive else "dead"
            place = slot.where or (f"pid {slot.pid}" if slot.pid else "-")
            slots.add_row(slot.slot, str(slot.role), slot.pool, place, slot.url, alive, _HEALTH[slot.healthy])
        out.print(slots)
        for line in row.drift:
            out.print(f"drift: {line}", markup=False, soft_wrap=True)
