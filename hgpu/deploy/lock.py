"""One hgpu at a time works on a deployment; a second one is told so at once."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from hgpu.core.errors import HgpuError
from hgpu.runtime.processes import is_running

_LOCK = "lock"
_OWNER = "lock.owner"
_BRIEFLY = "briefly"
_POLL_S = 0.05
_BRIEF_S = 60.0  # the supervisor stops what is left of an engine and starts it


@contextmanager
def locked(folder: Path, brief: bool = False) -> Iterator[None]:
    """Hold the deployment's lock; the kernel lets go of it however this process ends.

    Who holds it `brief`ly is waited for. Raises HgpuError with the holder's pid where somebody else holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        _acquire(lock, folder, brief)
    except Timeout as error:
        raise HgpuError(
            f"another hgpu is working on it, pid {worker(folder) or 'unknown'}",
            f"it holds the lock of deployment '{folder.name}'",
            "wait until it is done, or interrupt it; nothing was changed",
        ) from error
    except OSError as error:
        raise HgpuError(
            f"can't use {folder}", error.strerror or str(error), "choose another --results"
        ) from error
    try:
        words = f"{os.getpid()} {psutil.Process().create_time()} {_BRIEFLY if brief else ''}"
        (folder / _OWNER).write_text(f"{words}\n", encoding="ascii")
        yield
    finally:
        (folder / _OWNER).unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, folder: Path, brief: bool) -> None:
    deadline = time.monotonic() + (0.0 if brief else _BRIEF_S)
    while True:
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            owner = _BRIEFLY
            with suppress(OSError):  # not written yet, or gone already
                owner = (folder / _OWNER).read_text(encoding="ascii") or owner
            if _BRIEFLY not in owner or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def worker(folder: Path) -> int | None:
    """Return the pid of the hgpu that works on the deployment now."""
    with suppress(OSError, ValueError):
        pid, created = (folder / _OWNER).read_text(encoding="ascii").split()[:2]
        return int(pid) if is_running(int(pid), float(created)) else None
    return None
