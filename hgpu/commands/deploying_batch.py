"""What `hgpu deploy` calls for what ends by itself, a fine-tune or a loop: render, check and write it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact
from hgpu.commands.given import given_options
from hgpu.core.errors import InputError
from hgpu.deploy.render.document import Document
from hgpu.deploy.render.rl_targets import LoopTarget, loop_target, render_loop
from hgpu.deploy.render.tune import JobTarget, job_target, render_job
from hgpu.deploy.render.write import Written, write_rendered

RENDERING = ("name", "namespace", "image", "secret")
TAKEN = (*RENDERING, "plan", "target", "dry_run", "out", "crds", "command", "claim", "results", "json")


@dataclass(frozen=True, slots=True)
class Batch:
    """A kind of artifact that renders as a job: its noun, what is written of it, its targets and renderer."""

    noun: str
    written: str
    target: Callable[[str], JobTarget | LoopTarget]
    render: Callable[..., list[Document]]


BATCHES = {
    "job": Batch("job", "what a cluster or SkyPilot takes", job_target, render_job),
    "placement": Batch("loop", "their configuration", loop_target, render_loop),
}


def batch_of(root: Path, ref: str) -> Artifact[Any] | None:
    """Return the job or placement that a reference means, or None where it means a plan of services."""
    kinds = ("plan", *BATCHES)
    found: Artifact[Any] = resolve(root, ref, accept=lambda artifact: artifact.manifest.kind in kinds)
    return found if found.manifest.kind in BATCHES else None


def write_batch(
    context: typer.Context,
    artifact: Artifact[Any],
    target: str,
    out: Path,
    definitions: Path | None,
    values: Mapping[str, Any],
) -> tuple[list[Written], str]:
    """Write what a target would be given, and return the files and the command that applies them."""
    batch = BATCHES[artifact.manifest.kind]
    found, given = batch.target(target), given_options(context)
    foreign = [word for name, word in given.items() if name not in TAKEN]
    if foreign:
        raise InputError(
            f"{', '.join(foreign)}: of plans of services", f"a {batch.noun} has none of it", "drop it"
        )
    if "dry_run" not in given:
        raise InputError(
            f"hgpu doesn't launch {batch.noun}s itself yet",
            f"it writes and checks {batch.written}",
            f"--dry-run --out DIR, then: {found.by_hand.format(out='DIR')}",
        )
    rendering = {name: values[name] for name in RENDERING if values.get(name) is not None}
    documents = batch.render(
        artifact.payload, artifact.short, target, rendering, values.get("command"), values.get("claim")
    )
    return write_rendered(documents, found.check, out, definitions), found.by_hand.format(out=out)
