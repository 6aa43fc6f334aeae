"""Reading manifests of older schema versions."""

from collections.abc import Callable, Mapping
from typing import Any

from hgpu.core.errors import ArtifactError

Document = dict[str, Any]
Upgrade = Callable[[Document], Document]

# (kind, version it reads) -> a pure function that returns the document one version later
UPGRADES: Mapping[tuple[str, int], Upgrade] = {}


def upgraded(
    document: Document, current: int, upgrades: Mapping[tuple[str, int], Upgrade] = UPGRADES
) -> Document:
    """Return the document at schema version `current`; files on disk are never rewritten.

    Raises ArtifactError where the document is newer than this program or a step is missing.
    """
    kind, version = document["kind"], document["schema_version"]
    if version > current:
        raise ArtifactError(
            f"this {kind} has schema version {version}",
            f"this hgpu reads {kind} up to version {current}",
            "upgrade hgpu to the version in the artifact's producer field: "
            f"{document.get('producer', {}).get('version', 'unknown')} or newer",
        )
    while version < current:
        step = upgrades.get((kind, version))
        if step is None:
            raise ArtifactError(
                f"no way to read {kind} schema version {version}",
                f"this hgpu reads versions it has an upgrade for, up to {current}",
                "make the artifact again",
            )
        version += 1
        document = {**step(document), "schema_version": version}
    return document
