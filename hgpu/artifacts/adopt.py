"""Taking in an artifact that another machine made: verified, then there whole or not at all."""

import os
import shutil
from pathlib import Path
from typing import Any

from hgpu.artifacts.durable import sync_folder, write_synced
from hgpu.artifacts.resolve import entries
from hgpu.artifacts.store import MANIFEST, Artifact, load
from hgpu.core.errors import ArtifactError, HgpuError


def adopt(root: Path, folder: Path) -> Artifact[Any]:
    """Copy the artifact in `folder` into the store under `root` as it is; one that is there is kept.

    Only the manifest and the files that it names are taken. Raises ArtifactError where it is damaged or
    its folder isn't named after it, HgpuError where the disk refuses.
    """
    found = load(folder)
    for entry in entries(root, found.manifest.kind):
        if entry.digest12 == found.short and load(entry.path).digest == found.digest:
            return load(entry.path)
    if not folder.name.endswith(f"-{found.short}"):
        raise ArtifactError(
            f"{folder} has another artifact's name", f"its digest is {found.short}", "make it again"
        )
    parent = root / found.manifest.kind
    staging = parent / f".tmp-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        for name in [*(row.path for row in found.manifest.files), MANIFEST]:
            write_synced(staging / name, (folder / name).read_bytes())
        sync_folder(staging)
        staging.rename(parent / folder.name)
        sync_folder(parent)
    except OSError as error:
        raise HgpuError(
            f"can't write the {found.manifest.kind} artifact under {root}",
            error.strerror or str(error),
            "free space or choose another folder with --results; nothing half-written is left",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return load(parent / folder.name)
