"""Writing so that a crash of the machine loses nothing that was said to be there."""

import os
from pathlib import Path


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and have it on disk before returning. Its name is there once its folder is synced."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_file(path: Path) -> None:
    """Have on disk what another has written into a file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Have on disk which names a folder holds."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
