"""From an artifact back to the measurements that it rests on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A node of the lineage tree. `artifact` is None for plain files and for lost artifacts."""

    role: str
    kind: str
    digest: str
    artifact: Artifact[Any] | None
    problem: str
    inputs: tuple["Ancestor", ...]


def lineage(root: Path, artifact: Artifact[Any], role: str = "") -> Ancestor:
    """Walk the inputs of `artifact` down to files and measurements, digest by digest."""
    manifest = artifact.manifest
    inputs = tuple(_ancestor(root, row.role, row.kind, row.digest) for row in manifest.inputs)
    return Ancestor(role, manifest.kind, manifest.digest, artifact, "", inputs)


def _ancestor(root: Path, role: str, kind: str, digest: str) -> Ancestor:
    if kind == "file":
        return Ancestor(role, kind, digest, None, "", ())
    try:
        return lineage(root, resolve(root, digest, kind), role)
    except ArtifactError as error:
        return Ancestor(role, kind, digest, None, error.what, ())
