"""What `hgpu report` calls: the artifacts to draw, their file names, and the writing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.artifacts.lineage import Ancestor
from hgpu.artifacts.related import Related, related
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import InputError
from hgpu.report.html.render import html_report


@dataclass(frozen=True, slots=True)
class Written:
    """A page on disk and what it shows."""

    path: str
    kind: str
    digest: str
    bytes: int


def write_pages(root: Path, artifact: Artifact[Any], out: Path | None, with_related: bool) -> list[Written]:
    """Write the page of `artifact`, the asked one first, and those of its relatives where they are wanted."""
    if out is not None and out.is_dir():
        raise InputError(
            f"{out} is a folder", "the page is one file", f"try --out {out / page_name(artifact)}"
        )
    path = out or Path(page_name(artifact))
    kin = related(root, artifact)
    chosen = _relatives(kin, artifact) if with_related else {}
    links = {digest: page_name(row) for digest, row in chosen.items()} | {artifact.digest: path.name}
    pages = [_write(path, artifact, kin, links if with_related else {})]
    for row in chosen.values():
        pages.append(_write(path.parent / page_name(row), row, related(root, row), links))
    return pages


def page_name(artifact: Artifact[Any]) -> str:
    """Return the file name of an artifact's page."""
    return f"{artifact.manifest.kind}-{artifact.short}.html"


def _relatives(kin: Related, artifact: Artifact[Any]) -> dict[str, Artifact[Any]]:
    """Return all ancestors and the direct children, by digest, without the artifact itself."""
    found = {row.digest: row for row in [*_ancestors(kin.ancestor), *kin.children]}
    found.pop(artifact.digest, None)
    return found


def _ancestors(node: Ancestor) -> Iterator[Artifact[Any]]:
    for row in node.inputs:
        if row.artifact is not None:
            yield row.artifact
        yield from _ancestors(row)


def _write(path: Path, artifact: Artifact[Any], kin: Related, links: dict[str, str]) -> Written:
    """Write a page whole or not at all."""
    content = html_report(artifact, kin, links).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staged.write_bytes(content)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return Written(str(path), artifact.manifest.kind, artifact.digest, len(content))
