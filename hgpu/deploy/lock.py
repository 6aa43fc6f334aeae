"""One hgpu at a time works on a deployment; a second one is told so at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from hgpu.core.errors import HgpuError
from hgpu.runtime.processes import is_running

_LOCK = "lock"
_OWNER = "lock.owner"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the deployment's lock; the kernel lets go of it however this process ends.

    Raises HgpuError with the holder's pid where somebody else holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
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
        (folder / _OWNER).write_text(f"{os.getpid()} {psutil.Process().create_time()}\n", encoding="ascii")
        yield
    finally:
        (folder / _OWNER).unlink(missing_ok=True)
        lock.release()


def worker(folder: Path) -> int | None:
    """Return the pid of the hgpu that works on the deployment now."""
    with suppress(OSError, ValueError):
        pid, created = (folder / _OWNER).read_text(encoding="ascii").split()
        return int(pid) if is_running(int(pid), float(created)) else None
    return None
