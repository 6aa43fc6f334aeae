"""Artifacts in the terminal: lists, one artifact, lineage."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.tree import Tree

from hgpu.artifacts.lineage import Ancestor
from hgpu.artifacts.payloads.latency import LatencyPayload
from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.payloads.routing import RoutingPayload
from hgpu.artifacts.resolve import Entry
from hgpu.artifacts.store import Artifact
from hgpu.report.bench import print_bench
from hgpu.report.comparison import print_comparison
from hgpu.report.job import print_activations, print_job
from hgpu.report.latency import print_fits
from hgpu.report.load import print_load
from hgpu.report.memory import print_memory
from hgpu.report.output import console, table
from hgpu.report.placement import print_placement
from hgpu.report.plan import print_plan
from hgpu.report.profile import print_profiles
from hgpu.report.routing import print_routings
from hgpu.report.simulation import print_simulation
from hgpu.report.tuning import print_tuning


def print_entries(found: Sequence[Entry], root: Path) -> None:
    """Print a row an artifact."""
    rows = table("", "kind", "digest", "created", "name")
    for entry in found:
        name = entry.path.name.removeprefix(f"{entry.stamp}-").removesuffix(f"-{entry.digest12}")
        rows.add_row(entry.kind, entry.digest12, entry.stamp, name)
    console().print(rows if found else f"no artifacts under {root}")


def print_artifact(artifact: Artifact[Any]) -> None:
    """Print an artifact by its kind, or its payload where the kind has no table of its own."""
    manifest = artifact.manifest
    out = console()
    made = f"hgpu {manifest.producer.version}" + (
        f" at {manifest.producer.git_sha[:12]}" if manifest.producer.git_sha else ""
    )
    state = "valid" if manifest.validity.valid else "INVALID"
    out.print(
        f"[bold]{manifest.kind}[/bold] {artifact.short}  {manifest.created_at}  {made}  {state}",
        soft_wrap=True,
    )
    for reason in manifest.validity.reasons:
        out.print(f"  note: {reason}", markup=False, soft_wrap=True)
    shown = {key: value for key, value in manifest.environment.model_dump().items() if value}
    if shown:
        out.print(
            "  " + ", ".join(f"{key} {value}" for key, value in shown.items()), markup=False, soft_wrap=True
        )
    out.print()
    printer = PRINTERS.get(manifest.kind)
    if printer:
        printer(artifact)
    else:
        out.print(json.dumps(manifest.payload, indent=1), markup=False, soft_wrap=True)


def _print_latency(artifact: Artifact[LatencyPayload]) -> None:
    print_fits([artifact])


def _print_profile(artifact: Artifact[ProfilePayload]) -> None:
    print_profiles([artifact])


def _print_routing(artifact: Artifact[RoutingPayload]) -> None:
    print_routings([artifact])


PRINTERS: dict[str, Callable[[Artifact[Any]], None]] = {
    "plan": print_plan,
    "placement": print_placement,
    "profile": _print_profile,
    "latency": _print_latency,
    "simulation": print_simulation,
    "routing": _print_routing,
    "bench": print_bench,
    "load": print_load,
    "comparison": print_comparison,
    "memory": print_memory,
    "job": print_job,
    "activations": print_activations,
    "tuning": print_tuning,
}


def print_lineage(ancestor: Ancestor) -> None:
    """Print the tree of inputs, the artifact itself at the top."""
    tree = Tree(_line(ancestor))
    _grow(tree, ancestor)
    console().print(tree)


def lineage_json(ancestor: Ancestor) -> dict[str, Any]:
    """Return the tree as nested JSON."""
    return {
        "role": ancestor.role,
        "kind": ancestor.kind,
        "digest": ancestor.digest,
        "path": str(ancestor.artifact.path) if ancestor.artifact else None,
        "problem": ancestor.problem or None,
        "inputs": [lineage_json(row) for row in ancestor.inputs],
    }


def provenance_of(artifact: Artifact[Any]) -> str:
    """Return what the artifact's figures claim to be; empty where its kind doesn't say."""
    payload = artifact.payload
    source = getattr(payload, "provenance", None) or getattr(
        getattr(payload, "latency", None), "provenance", ""
    )
    return str(source)


def _grow(tree: Tree, ancestor: Ancestor) -> None:
    for row in ancestor.inputs:
        _grow(tree.add(_line(row)), row)


def _line(ancestor: Ancestor) -> str:
    role = f"{ancestor.role}: " if ancestor.role else ""
    where = f"[red]missing ({ancestor.problem})[/red]" if ancestor.problem else ""
    if ancestor.artifact:
        where = f"{provenance_of(ancestor.artifact)} {ancestor.artifact.manifest.created_at[:19]}"
    return f"{role}[bold]{ancestor.kind}[/bold] {ancestor.digest[:12]} {where}".rstrip()
