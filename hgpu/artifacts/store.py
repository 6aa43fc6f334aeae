"""The artifact store: atomic save, verified load."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil
from pydantic import ValidationError

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.durable import sync_folder, write_synced
from hgpu.artifacts.kinds import kind_of
from hgpu.artifacts.manifest import (
    Environment,
    FileRef,
    InputRef,
    Manifest,
    Strict,
    Validity,
    manifest_digest,
)
from hgpu.artifacts.producer import producer
from hgpu.artifacts.upgrade import upgraded
from hgpu.core.errors import ArtifactError, HgpuError

MANIFEST = "manifest.json"
P = TypeVar("P", bound=Strict)


@dataclass(frozen=True, slots=True)
class Artifact(Generic[P]):
    """A manifest, its checked payload, and the folder that holds them."""

    path: Path
    manifest: Manifest
    payload: P

    @property
    def digest(self) -> str:
        """The sha256 of everything that matters."""
        return self.manifest.digest

    @property
    def short(self) -> str:
        """Twelve digits of the digest, enough to name the artifact."""
        return self.manifest.digest[:12]

    def as_input(self, role: str) -> InputRef:
        """Return the reference that a later artifact keeps of this one."""
        return InputRef(role=role, kind=self.manifest.kind, digest=self.digest)


@dataclass(frozen=True, slots=True)
class Draft(Generic[P]):
    """What a stage hands to the store. `files` maps names inside the artifact to bytes."""

    kind: str
    slug: str
    payload: P
    inputs: Sequence[InputRef] = ()
    options: Mapping[str, Any] | None = None
    environment: Environment = field(default_factory=Environment)
    validity: Validity = field(default_factory=Validity)
    timings: Mapping[str, float] | None = None
    files: Mapping[str, bytes] | None = None


def save(root: Path, draft: Draft[P], now: datetime | None = None) -> Artifact[P]:
    """Write an artifact under `root` and return it.

    A temporary sibling folder is filled and synced, the manifest last, then renamed: after a
    crash at any moment the artifact is there whole or not at all.
    Raises HgpuError where the disk refuses.
    """
    moment = now or datetime.now(UTC)
    parent = root / draft.kind
    staging = parent / f".tmp-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        staging.mkdir()
        manifest = _manifest(draft, staging, moment)
        write_synced(
            staging / MANIFEST,
            json.dumps(manifest.model_dump(mode="json"), indent=1, allow_nan=False).encode(),
        )
        sync_folder(staging)
        path = _final_path(parent, draft.slug, manifest, moment)
        staging.rename(path)
        sync_folder(parent)
    except OSError as error:
        raise HgpuError(
            f"can't write the {draft.kind} artifact under {root}",
            error.strerror or str(error),
            "free space or choose another folder with --results; nothing half-written is left",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Artifact(path, manifest, draft.payload)


def load(path: Path) -> Artifact[Any]:
    """Read an artifact from its folder, verify its digest and files, and upgrade old schemas.

    Raises ArtifactError naming what is damaged, unknown or too new.
    """
    folder = path.parent if path.name == MANIFEST else path
    document = _read(folder / MANIFEST)
    _verify(folder, document)
    kind = kind_of(document["kind"])
    document = upgraded(document, kind.version)
    try:
        manifest = Manifest.model_validate(document)
        return Artifact(folder, manifest, kind.payload.model_validate_json(json.dumps(manifest.payload)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(
            f"{folder} is not a valid {kind.name} artifact", f"{place}: {first['msg']}", "make it again"
        ) from error


def draft_digest(draft: Draft[P]) -> str:
    """Return the digest that the artifact will have."""
    return manifest_digest(_document(draft))


def _document(draft: Draft[P]) -> dict[str, Any]:
    files = [
        FileRef(path=name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in sorted((draft.files or {}).items())
    ]
    return {
        "kind": draft.kind,
        "schema_version": kind_of(draft.kind).version,
        "inputs": [row.model_dump() for row in draft.inputs],
        "options": json.loads(json.dumps(draft.options or {})),
        "files": [row.model_dump() for row in files],
        "payload": draft.payload.model_dump(mode="json"),
    }


def _manifest(draft: Draft[P], staging: Path, moment: datetime) -> Manifest:
    document = _document(draft)
    for name, content in (draft.files or {}).items():
        write_synced(staging / name, content)
    return Manifest.model_validate(
        {
            **document,
            "digest": manifest_digest(document),
            "created_at": moment.isoformat(timespec="milliseconds"),
            "producer": producer(),
            "environment": draft.environment,
            "validity": draft.validity,
            "timings": dict(draft.timings or {}),
        }
    )


def _final_path(parent: Path, slug: str, manifest: Manifest, moment: datetime) -> Path:
    safe = re.sub(r"[^A-Za-z0-9.]+", "-", slug).strip("-").lower()[:60]
    stamp = moment.strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    base = parent / f"{stamp}-{safe}-{manifest.digest[:12]}"
    number = 1
    path = base
    while path.exists():  # the same artifact saved twice within a millisecond
        number += 1
        path = base.with_name(f"{stamp}.{number}-{safe}-{manifest.digest[:12]}")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(
            f"no artifact at {path.parent}", f"it holds no {MANIFEST}", "see `hgpu list` for what there is"
        ) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"can't read {path}", str(error), "make the artifact again") from error
    needed = {"kind", "schema_version", "digest", "inputs", "options", "files", "payload"}
    if not isinstance(document, dict) or not needed <= document.keys():
        raise ArtifactError(
            f"{path} is not a manifest", "required keys are missing", "make the artifact again"
        )
    return document


def _verify(folder: Path, document: dict[str, Any]) -> None:
    try:
        expected = manifest_digest(document)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder} is damaged", f"its manifest can't be hashed: {error}", "make it again"
        ) from error
    if expected != document["digest"]:
        raise ArtifactError(
            f"{folder} is damaged or was edited",
            f"its contents have digest {expected[:12]}, its manifest says {str(document['digest'])[:12]}",
            "make the artifact again; artifacts are never edited by hand",
        )
    for row in document["files"]:
        path = folder / row["path"]
        if Path(row["path"]).is_absolute() or ".." in Path(row["path"]).parts:
            raise ArtifactError(
                f"{folder} is damaged", f"it names a file outside of it: {row['path']}", "make it again"
            )
        if not path.is_file() or file_digest(path) != row["sha256"]:
            raise ArtifactError(
                f"{folder} is damaged", f"{row['path']} is missing or differs from its hash", "make it again"
            )


def _sweep(parent: Path) -> None:
    """Remove the staging folders of processes that died while they wrote."""
    for folder in parent.glob(".tmp-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
