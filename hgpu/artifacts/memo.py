"""Answers that cost seconds to compute, kept on disk by the digest of all that they depend on.

A memo is no artifact: it has no manifest, nothing refers to it, and it may be deleted at any time.
It lies under `<results>/memo/<name>/<digest>.json`, where `hgpu list`, which walks the folders of
kinds, doesn't look.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.artifacts.digest import canonical_json, digest_of
from hgpu.core.errors import HgpuError


@dataclass(frozen=True, slots=True)
class Memo:
    """JSON values by digest in one folder. A look-up opens one file, however many there are."""

    folder: Path

    def get(self, digest: str) -> dict[str, Any] | None:
        """Return the value kept for a digest; None where there is none, or a damaged one."""
        try:
            entry = json.loads(self._path(digest).read_bytes())
            value: dict[str, Any] = entry["value"]
            whole = entry["digest"] == digest_of([digest, value])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return value if whole else None

    def put(self, digest: str, value: dict[str, Any]) -> None:
        """Keep a value: a temporary file of this writer's own, then a rename.

        Whoever writes the same digest writes the same bytes, so the last one wins and nobody loses.
        No fsync: what a power cut damages is computed again. Raises HgpuError where the disk refuses.
        """
        path = self._path(digest)
        staging = path.with_name(f".tmp-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            staging.write_bytes(canonical_json({"digest": digest_of([digest, value]), "value": value}))
            staging.replace(path)
        except OSError as error:
            raise HgpuError(
                f"can't write under {self.folder}",
                error.strerror or str(error),
                "free space or choose another folder with --results",
            ) from error
        finally:
            staging.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.json"
