"""Blocks of KV cache as files in a folder that engines share, and never more bytes of them than allowed.

A block is named by the hash of all tokens up to its end (vLLM's own), so a name has one content for ever: a
file is there whole or not at all, and whoever finds it needs to ask nobody.
"""

import os
from contextlib import suppress
from pathlib import Path

_SUFFIX = ".kv"
_KEPT = 0.8  # of the bytes allowed, when some have to go


class BlockFolder:
    """Keeps at most `limit_bytes`, the most recently used; None is for those that only read.

    Where several write into one folder, it never has more bytes than their limits have in sum.
    """

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # what prompts say can be told from it
        self._bytes = 0
        if limit_bytes is not None:
            for path in folder.glob(".*.part"):  # of a writer that was killed
                path.unlink(missing_ok=True)
            self._bound()

    def has(self, name: str) -> bool:
        """Tell whether a block is there, and note that it was wanted."""
        try:
            os.utime(self._path(name))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """Return a block. Raises FileNotFoundError where it has gone."""
        return self._path(name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Put a block there, all at once. Raises OSError where there is no space."""
        path = self._path(name)
        part = self.folder / f".{name}.part"
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self._bytes += len(data)
        if self.limit_bytes is not None and self._bytes > self.limit_bytes:
            self._bound()

    def _bound(self) -> None:
        """Look at what there is; where it is too much, the least recently used goes."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime_ns, path, status.st_size))
        self._bytes = sum(size for _, _, size in found)
        if self.limit_bytes is None or self._bytes <= self.limit_bytes:
            return
        for _, path, size in sorted(found):
            if self._bytes <= _KEPT * self.limit_bytes:
                return
            path.unlink(missing_ok=True)
            self._bytes -= size

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"
