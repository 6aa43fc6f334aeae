"""What `hgpu deploy` calls for a planned fine-tune: render, check and write it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from hgpu.artifacts.payloads.job import JobPayload
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact
from hgpu.commands.deploying_rl import KINDS
from hgpu.commands.given import given_options
from hgpu.core.errors import ArtifactError, InputError
from hgpu.deploy.render.tune import job_target, render_job
from hgpu.deploy.render.write import Written, write_rendered

RENDERING = ("name", "namespace", "image", "secret")
TAKEN = (*RENDERING, "plan", "target", "dry_run", "out", "crds", "command", "claim", "results", "json")


def job_of(root: Path, ref: str) -> Artifact[JobPayload] | None:
    """Return the job that a reference means, or None where it means another plan, or nothing."""
    try:
        found = resolve(root, ref, accept=lambda artifact: artifact.manifest.kind in KINDS)
    except ArtifactError:
        return None
    return found if found.manifest.kind == "job" else None


def write_job(
    context: typer.Context,
    job: Artifact[JobPayload],
    target: str,
    out: Path,
    definitions: Path | None,
    values: Mapping[str, Any],
) -> tuple[list[Written], str]:
    """Write what a target would be given, and return the files and the command that applies them."""
    found, given = job_target(target), given_options(context)
    foreign = [word for name, word in given.items() if name not in TAKEN]
    if foreign:
        raise InputError(f"{', '.join(foreign)}: of plans of services", "a job has none of it", "drop it")
    if "dry_run" not in given:
        raise InputError(
            "hgpu doesn't launch jobs itself yet",
            "it writes and checks what a cluster or SkyPilot takes",
            f"--dry-run --out DIR, then: {found.by_hand.format(out='DIR')}",
        )
    rendering = {name: values[name] for name in RENDERING if values.get(name) is not None}
    documents = render_job(
        job.payload, job.short, target, rendering, values.get("command"), values.get("claim")
    )
    return write_rendered(documents, found.check, out, definitions), found.by_hand.format(out=out)
