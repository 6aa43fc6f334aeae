"""Blessing: a person says that these artifacts are the ones to hold others against."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgpu.artifacts.store import Artifact
from hgpu.bench.doubts import doubts
from hgpu.core.errors import InputError, InvalidMeasurement


def bless(root: Path, artifacts: Sequence[Artifact[Any]], name: str) -> Path:
    """Make `@name` stand for the artifacts, together where they are several, and return the ref's file.

    A name that stood for others moves. Raises InvalidMeasurement where one isn't to be believed, InputError
    for a name that is none, for artifacts of several kinds, or where `root` doesn't hold them.
    """
    kinds = sorted({artifact.manifest.kind for artifact in artifacts})
    _check(root, artifacts, name, kinds)
    digests = [artifact.digest for artifact in artifacts]
    one = {"digest": digests[0]} if len(digests) == 1 else {"digests": digests}
    path = root / "refs" / kinds[0] / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{name}.{os.getpid()}")
    staging.write_text(json.dumps(one, indent=1) + "\n", encoding="utf-8")
    staging.rename(path)
    return path


def _check(root: Path, artifacts: Sequence[Artifact[Any]], name: str, kinds: Sequence[str]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise InputError(
            f"'{name}' is no name for a ref", "it has letters, digits, '.', '_' and '-'", "rename it"
        )
    if len(kinds) != 1:
        raise InputError("a ref is of one kind", f"these are {' and '.join(kinds)}", "bless them apart")
    reasons = [reason for artifact in artifacts for reason in doubts(artifact)]
    if reasons:
        raise InvalidMeasurement("what isn't valid can't be blessed", "; ".join(reasons), "measure again")
    elsewhere = [a.short for a in artifacts if a.path.resolve().parent != (root / kinds[0]).resolve()]
    if elsewhere:
        raise InputError(
            f"{', '.join(elsewhere)} isn't kept under {root}",
            "a ref names an artifact of its own results folder",
            "give that folder with --results",
        )
