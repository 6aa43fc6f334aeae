"""Saving what may be there already: results that are computed, not measured."""

from pathlib import Path
from typing import TypeVar

from hgpu.artifacts.manifest import Strict
from hgpu.artifacts.resolve import entries
from hgpu.artifacts.store import Artifact, Draft, draft_digest, load, save

P = TypeVar("P", bound=Strict)


def save_once(root: Path, draft: Draft[P]) -> Artifact[P]:
    """Return the artifact with this draft's digest, written only where it isn't there yet."""
    digest = draft_digest(draft)
    for entry in entries(root, draft.kind):
        if entry.digest12 == digest[:12]:
            found: Artifact[P] = load(entry.path)
            if found.digest == digest:
                return found
    return save(root, draft)
