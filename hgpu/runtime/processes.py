"""Child processes that outlive us: started detached, told from the next owners of their pids, stopped."""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from hgpu.core.errors import EngineError

_CREATED_TOLERANCE_S = 2.0  # derived from a boot time in whole seconds that follows the wall clock
_KILL_WAIT_S = 10.0
_ROUND_S = 0.1


def spawn(
    command: Sequence[str], env: Mapping[str, str], cores: Sequence[int], log: Path, tag: Mapping[str, str]
) -> tuple[int, float]:
    """Start `command` detached in its own session and return its pid and creation time (Unix seconds).

    Output goes to `log`; the log of an earlier run is kept as `<name>.previous.log`. The process
    is bound to `cores` before it runs (none: not bound). Raises EngineError where it can't start.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        with _bound_to(cores):
            pid = os.posix_spawnp(
                command[0],
                list(command),
                {**env, **tag},
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ),
            )
    except OSError as error:
        raise EngineError(
            f"can't start {command[0]}", error.strerror or str(error), "check that it is installed"
        ) from error
    return pid, _created(pid)


def is_leader(process: psutil.Process) -> bool:
    """Tell whether the process is the one that `spawn` started, not one of its children."""
    try:
        return os.getsid(process.pid) == process.pid
    except OSError:
        return False


def is_running(pid: int, created: float) -> bool:
    """Tell whether the process that got `pid` at `created` lives, as a zombie or a later owner doesn't."""
    return found(pid, created) is not None


def found(pid: int, created: float) -> psutil.Process | None:
    """Return the living process that got `pid` at `created`."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < _CREATED_TOLERANCE_S and not is_gone(process):
            return process
    return None


def is_gone(process: psutil.Process) -> bool:
    """Dead already, and waiting for a parent to notice; gone counts too."""
    try:
        return process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def listens(processes: Iterable[psutil.Process], port: int) -> bool:
    """Tell whether one of the processes has a listening socket on the TCP port."""
    for process in processes:
        with suppress(psutil.Error):
            connections = process.net_connections("tcp")
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
                return True
    return False


def stop(processes: Iterable[psutil.Process], grace_s: float = 10.0) -> list[psutil.Process]:
    """End the processes and all their descendants; return those that survive even SIGKILL.

    SIGTERM goes from the top down: a parent is asked first and may take its children along;
    children that it leaves behind are asked themselves. SIGKILL follows after `grace_s` seconds.
    """
    alive = _families(processes)
    deadline = time.monotonic() + grace_s
    asked: set[int] = set()
    while alive and time.monotonic() < deadline:
        pids = {process.pid for process in alive}
        for process in alive:
            with suppress(psutil.Error):
                if process.pid not in asked and process.ppid() not in pids:
                    asked.add(process.pid)
                    process.terminate()
        alive = _waited(alive, _ROUND_S)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + _KILL_WAIT_S
    while alive and time.monotonic() < deadline:
        alive = _waited(alive, _ROUND_S)
    return alive


def _families(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    family: dict[int, psutil.Process] = {}
    for process in processes:
        family[process.pid] = process
        with suppress(psutil.Error):
            family.update({child.pid: child for child in process.children(recursive=True)})
    return [family[pid] for pid in sorted(family) if not is_gone(family[pid])]


def _waited(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return [process for process in alive if not is_gone(process)]


def _created(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:  # dead and reaped already
        return 0.0


@contextmanager
def _bound_to(cores: Sequence[int]) -> Iterator[None]:
    """Bind this thread, whose binding a child inherits, for as long as the block runs."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
