"""Rendered documents as files of a folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hgpu.core.errors import InputError
from hgpu.deploy.render.document import Document
from hgpu.deploy.render.validate import Check


@dataclass(frozen=True, slots=True)
class Written:
    """A file; `unchecked` says why nothing held it against what its target takes, and is empty otherwise."""

    path: Path
    unchecked: str


def write_rendered(
    documents: Sequence[Document], check: Check, out: Path, definitions: Path | None
) -> list[Written]:
    """Check every document, and only then write them into a new or empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out} isn't an empty folder",
            "files of an earlier plan would stay beside those of this one",
            "empty it, or name another with --out",
        )
    notes = [check(document, definitions) for document in documents]
    try:
        return [_write(out, document, note) for document, note in zip(documents, notes, strict=True)]
    except OSError as error:
        raise InputError(
            f"can't write to {out}", error.strerror or str(error), "name another --out"
        ) from error


def text_of(document: Document) -> str:
    """Return what a document's file holds."""
    if isinstance(document.body, str):
        return document.body
    if document.path.endswith(".json"):
        return json.dumps(document.body, indent=1, allow_nan=False) + "\n"
    return yaml.dump(document.body, Dumper=_Plain, sort_keys=False, width=110)


class _Plain(yaml.SafeDumper):
    """Repeats what occurs twice, where YAML would refer to it: kubectl's users read these files."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Write a text of several lines as it reads."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def _write(out: Path, document: Document, note: str) -> Written:
    path = out / document.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(document), encoding="utf-8")
    return Written(path, note)
