"""From what a user types to an artifact: a path, a digest prefix, `@ref` or `latest`."""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.artifacts.kinds import KINDS
from hgpu.artifacts.store import MANIFEST, Artifact, load
from hgpu.core.errors import ArtifactError, UnknownName

Accept = Callable[[Artifact[Any]], bool]


@dataclass(frozen=True, slots=True)
class Entry:
    """An artifact's folder, told from its name alone."""

    kind: str
    path: Path
    stamp: str
    digest12: str


def entries(root: Path, kind: str | None = None) -> list[Entry]:
    """Return the artifacts under `root`, newest first, without opening them.

    A folder without a manifest doesn't exist.
    """
    kinds = [kind] if kind else list(KINDS)
    found = [entry for name in kinds for entry in _folder_entries(root, name)]
    return sorted(found, key=lambda entry: (entry.stamp, entry.path.name), reverse=True)


def resolve(root: Path, ref: str, kind: str | None = None, accept: Accept = lambda _: True) -> Artifact[Any]:
    """Return the artifact that `ref` means; it must be of `kind` where one is given.

    `latest` is the newest valid one that `accept` takes; it is refused under CI=true, where a
    run must name what it uses. Raises ArtifactError.
    """
    artifact = load(_locate(root, ref, kind, accept))
    if kind and artifact.manifest.kind != kind:
        raise _other_kind(ref, artifact.manifest.kind, kind)
    return artifact


def resolve_all(root: Path, ref: str, kind: str | None = None) -> list[Artifact[Any]]:
    """Return the artifacts that `ref` means: one, or all those that were blessed together as `@ref`."""
    if not ref.startswith("@"):
        return [resolve(root, ref, kind)]
    folder, digests = _named(root, ref[1:], kind)
    return [resolve(root, digest, folder) for digest in digests]


def under_ci() -> bool:
    """Tell whether this is a CI run, where nothing may depend on what happens to be newest."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _folder_entries(root: Path, kind: str) -> Iterator[Entry]:
    folder = root / kind
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        stamp, _, rest = path.name.partition("-")
        if not path.name.startswith(".") and (path / MANIFEST).is_file():
            yield Entry(kind, path, stamp, rest.rpartition("-")[2])


def _locate(root: Path, ref: str, kind: str | None, accept: Accept) -> Path:
    if ref == "latest":
        return _latest(root, kind, accept)
    if ref.startswith("@"):
        return _by_name(root, ref[1:], kind)
    if Path(ref).is_dir() or Path(ref).name == MANIFEST:
        return Path(ref)
    if Path(ref).exists():
        wanted = f"a {kind}" if kind else "an artifact"
        raise ArtifactError(
            f"'{ref}' is a file, and {wanted} is needed here",
            f"an artifact is a folder with a {MANIFEST}, which a command of hgpu writes",
            f"see `hgpu list{f' {kind}' if kind else ''}` for what there is",
        )
    if re.fullmatch(r"[0-9a-f]{4,64}", ref):
        return _by_prefix(root, ref, kind)
    raise ArtifactError(
        f"no artifact '{ref}'",
        "it is no path, no digest prefix of 4 digits or more, no @ref and not `latest`",
        "see `hgpu list` for what there is",
    )


def _latest(root: Path, kind: str | None, accept: Accept) -> Path:
    if under_ci():
        raise ArtifactError(
            "`latest` is refused under CI=true",
            "a CI run must not depend on which artifact happens to be newest",
            "name the artifact by path, digest or @ref",
        )
    for entry in entries(root, kind):
        artifact = load(entry.path)
        if artifact.manifest.validity.valid and accept(artifact):
            return entry.path
    raise ArtifactError(
        f"no {kind or 'artifact'} under {root} fits", "`latest` found none that is valid", "see `hgpu list`"
    )


def _by_name(root: Path, name: str, kind: str | None) -> Path:
    folder, digests = _named(root, name, kind)
    if len(digests) > 1:
        raise ArtifactError(
            f"'@{name}' names {len(digests)} artifacts",
            "one is needed here",
            "name one of them by its digest",
        )
    return _by_prefix(root, digests[0], folder)


def _named(root: Path, name: str, kind: str | None) -> tuple[str, list[str]]:
    """Return the kind and the digests that a ref stands for."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise ArtifactError(
            f"'@{name}' is no ref", "a ref has letters, digits, '.', '_' and '-'", "see results/refs"
        )
    for folder in [kind] if kind else list(KINDS):
        path = root / "refs" / folder / f"{name}.json"
        if path.is_file():
            document = json.loads(path.read_bytes())
            digests = document["digests"] if "digests" in document else [document["digest"]]
            return folder, [str(digest) for digest in digests]
    folders = [root / "refs" / folder for folder in ([kind] if kind else KINDS)]
    if known := {path.stem for folder in folders for path in folder.glob("*.json")}:
        raise UnknownName("ref", f"@{name}", [f"@{ref}" for ref in known])
    raise ArtifactError(
        f"no ref '@{name}'",
        f"{root / 'refs'} has none" + (f" of kind {kind}" if kind else ""),
        "make one with `hgpu bench bless REF NAME`",
    )


def _by_prefix(root: Path, prefix: str, kind: str | None) -> Path:
    hits = [e for e in entries(root, kind) if e.digest12.startswith(prefix[:12]) and _full_match(e, prefix)]
    digests = sorted({entry.digest12 for entry in hits})
    if not hits and kind and (others := [e for e in entries(root) if e.digest12.startswith(prefix[:12])]):
        raise _other_kind(prefix, others[0].kind, kind)
    if not hits:
        raise ArtifactError(f"no artifact with digest {prefix}…", f"none under {root}", "see `hgpu list`")
    if len(digests) > 1:
        raise ArtifactError(f"'{prefix}' is ambiguous", f"it fits {', '.join(digests)}", "give more digits")
    return hits[0].path


def _other_kind(ref: str, found: str, wanted: str) -> ArtifactError:
    return ArtifactError(f"'{ref}' is a {found}", f"a {wanted} is needed here", f"see `hgpu list {wanted}`")


def _full_match(entry: Entry, prefix: str) -> bool:
    if len(prefix) <= 12:
        return True
    digest = str(json.loads((entry.path / MANIFEST).read_bytes()).get("digest", ""))
    return digest.startswith(prefix)
