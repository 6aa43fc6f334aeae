"""What an artifact stands among: what it was made from, and what was made from it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.artifacts.lineage import Ancestor, lineage
from hgpu.artifacts.resolve import Entry, entries
from hgpu.artifacts.store import MANIFEST, Artifact, load
from hgpu.core.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Related:
    """The lineage of an artifact, the artifacts that name it as an input, and what can't be read of those.

    `children` are newest first, and one of each digest.
    """

    ancestor: Ancestor
    children: tuple[Artifact[Any], ...] = ()
    problems: tuple[str, ...] = ()

    def inputs(self, kind: str) -> list[Artifact[Any]]:
        """Return the inputs of a kind that are in the store."""
        rows = (row.artifact for row in self.ancestor.inputs if row.kind == kind)
        return [artifact for artifact in rows if artifact is not None]

    def made(self, kind: str) -> list[Artifact[Any]]:
        """Return what was made from the artifact, of a kind, newest first."""
        return [child for child in self.children if child.manifest.kind == kind]


def related(root: Path, artifact: Artifact[Any]) -> Related:
    """Look an artifact's relatives up in the store under `root`."""
    children: dict[str, Artifact[Any]] = {}
    problems = []
    for entry in entries(root):
        if artifact.digest not in _inputs(entry):
            continue
        try:
            child = load(entry.path)
        except ArtifactError as error:
            problems.append(f"{entry.kind} {entry.digest12}: {error.what}")
            continue
        children.setdefault(child.digest, child)
    return Related(lineage(root, artifact), tuple(children.values()), tuple(problems))


def _inputs(entry: Entry) -> Sequence[str]:
    """Return the digests that a manifest names as inputs; none where it isn't a manifest at all."""
    try:
        return [row["digest"] for row in json.loads((entry.path / MANIFEST).read_bytes())["inputs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
