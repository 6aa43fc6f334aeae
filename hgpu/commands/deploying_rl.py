"""What `hgpu deploy` calls for a placement of a loop: render, check and write it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact
from hgpu.commands.given import given_options
from hgpu.core.errors import ArtifactError, InputError
from hgpu.deploy.render.rl_targets import loop_target, render_loop
from hgpu.deploy.render.write import Written, write_rendered

RENDERING = ("name", "namespace", "image", "secret")
TAKEN = (*RENDERING, "plan", "target", "dry_run", "out", "crds", "command", "claim", "results", "json")
KINDS = ("plan", "placement", "job")  # what can be deployed


def placement_of(root: Path, ref: str) -> Artifact[PlacementPayload] | None:
    """Return the placement that a reference means, or None where it means a plan of services, or nothing."""
    try:
        found = resolve(root, ref, accept=lambda artifact: artifact.manifest.kind in KINDS)
    except ArtifactError:
        return None
    return found if found.manifest.kind == "placement" else None


def write_placement(
    context: typer.Context,
    placement: Artifact[PlacementPayload],
    target: str,
    out: Path,
    definitions: Path | None,
    values: Mapping[str, Any],
) -> tuple[list[Written], str]:
    """Write what a target would be given, and return the files and the command that applies them."""
    found = loop_target(target)
    by_hand = found.by_hand.format(out=out)
    given = given_options(context)
    foreign = [word for name, word in given.items() if name not in TAKEN]
    if foreign:
        raise InputError(f"{', '.join(foreign)}: of plans of services", "a loop has none of it", "drop it")
    if "dry_run" not in given:
        raise InputError(
            "hgpu doesn't launch loops itself yet",
            "it writes and checks their configuration",
            f"--dry-run --out DIR, then: {found.by_hand.format(out='DIR')}",
        )
    rendering = {name: values[name] for name in RENDERING if values.get(name) is not None}
    documents = render_loop(
        placement.payload, placement.short, target, rendering, values.get("command"), values.get("claim")
    )
    return write_rendered(documents, found.check, out, definitions), by_hand
