"""Starts the processes of a fine-tune on this machine, and raises what ended the first that failed.

torch's elastic launcher starts the same command once a device, with RANK and its like set, ends all when one
fails, and hands over the failed one's error in a file. On several machines each is told its place by
HGPU_NODES, HGPU_NODE_RANK and HGPU_LEADER_ADDRESS.
"""

import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hgpu.core.errors import EngineError, HgpuError, InputError
from hgpu.profilers.die_with import die_with
from hgpu.tuning.ranks import launched, require_devices
from hgpu.tuning.run import require_packages

NODES, NODE_RANK, LEADER, PORT = "HGPU_NODES", "HGPU_NODE_RANK", "HGPU_LEADER_ADDRESS", 29500
LAUNCHER = "HGPU_TUNE_LAUNCHER"  # the id of the process that started this one by `launch`
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where torch's launcher looks for it
AGAIN = "run the same command: it goes on from its last checkpoint"


@dataclass(frozen=True, slots=True)
class Nodes:
    """This machine's number, from 0, how many there are, and the address of the first (or HOST:PORT)."""

    number: int = 0
    count: int = 1
    leader: str = ""

    @property
    def endpoint(self) -> str:
        """Where they meet."""
        return self.leader if self.leader.count(":") == 1 else f"{self.leader}:{PORT}"


def nodes_told() -> Nodes:
    """Return what the environment says of the machines. Raises InputError where it is half said or wrong."""
    told = {name: os.environ.get(name, "") for name in (NODES, NODE_RANK, LEADER)}
    if told[NODES] in ("", "1"):
        return Nodes()
    try:
        found = Nodes(int(told[NODE_RANK]), int(told[NODES]), told[LEADER])
    except ValueError:
        found = Nodes(-1)
    if not 0 <= found.number < found.count or not found.leader:
        said = ", ".join(f"{name}={value!r}" for name, value in told.items())
        raise InputError(
            "this machine's place among others isn't clear",
            f"the environment says {said}",
            f"set {NODES}=2 {NODE_RANK}=0 (1 on the second) {LEADER}=ADDRESS-OF-THE-FIRST",
        )
    return found


def starts_processes(count: int) -> bool:
    """Tell whether a fine-tune on `count` devices has to start processes, which no launcher did yet."""
    return not launched() and (count > 1 or nodes_told().count > 1)


def launch(words: Sequence[str], count: int) -> None:
    """Run `hgpu` with `words` in this machine's share of `count` processes, and wait for them.

    Raises the HgpuError that ended the first of them, EngineError where one crashed, and InputError where the
    machines can't have a process each or this one has too few GPUs.
    """
    require_packages()
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    nodes = nodes_told()
    here, rest = divmod(count, nodes.count)
    if rest:
        raise InputError(
            f"{count} processes can't be shared by {nodes.count} machines",
            "each has the same number",
            f"choose a data_parallel that {nodes.count} divides",
        )
    require_devices(here)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // here)))
    os.environ[LAUNCHER] = str(os.getpid())
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what it would say is raised here
    with TemporaryDirectory(prefix="hgpu-tune-") as folder:
        config = LaunchConfig(
            nodes.count,
            nodes.count,
            here,
            DefaultLogsSpecs(log_dir=folder),
            run_id="hgpu",
            max_restarts=0,
            **_rendezvous(nodes),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "hgpu", *words)
        except ChildFailedError as error:
            raise first_error(error.failures, count) from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            sys.exit(128 + error.sigval)
        except DistError as error:
            raise EngineError(
                f"can't meet the other machines at {nodes.endpoint}",
                str(error).partition("\n")[0],
                f"let {LEADER} be the first machine's address, and its port free and open to the others",
            ) from error


def _rendezvous(nodes: Nodes) -> dict[str, Any]:
    """Return how the machines meet: alone on a free port; else at the first one, each with the number it has.

    The numbers matter, as the first process's machine keeps the results.
    """
    if nodes.count == 1:
        return {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
    return {
        "rdzv_backend": "static",
        "rdzv_endpoint": nodes.endpoint,
        "rdzv_configs": {"rank": nodes.number},
    }


def first_error(failures: dict[int, Any], count: int) -> HgpuError:
    """Return the error that began it: one that a process told, else a sudden end, else a lost connection."""

    def order(rank: int) -> tuple[int, float]:
        data, status = failures[rank].error_file_data, failures[rank].exitcode
        if "error" in data:
            return (2 if data["lost"] else 0), data["at"]
        return (3 if status == -signal.SIGTERM else 1), rank  # the launcher ends those that are left by it

    rank = min(failures, key=order)
    data = failures[rank].error_file_data
    if "error" not in data:
        return _silent(rank, count, failures[rank].exitcode)
    sys.stderr.write(data["traceback"])
    error = HgpuError(*data["error"])
    error.exit_code = data["exit_code"]
    return error


def _silent(rank: int, count: int, status: int) -> HgpuError:
    what = f"process {rank} of {count} ended with exit code {status}"
    if status < 0:
        what = f"process {rank} of {count} was ended by {signal.Signals(-status).name}"
    why = "the system does so when its memory is full" if status == -signal.SIGKILL else "it left no word"
    return EngineError(what, why, AGAIN)


@contextmanager
def ending_together() -> Iterator[None]:
    """In a process that a launcher started, end at once with what is inside.

    Without Python's finalization: Gloo's threads still want its lock for the last exchange, and abort the
    process where they don't get it. A process of `launch` also ends when its launcher does, and leaves an
    error to it instead of printing it.
    """
    ours = LAUNCHER in os.environ
    if ours:
        die_with(int(os.environ[LAUNCHER]))
    status = 0
    try:
        yield
    except Exception as error:
        if not ours:
            raise
        status = _leave(error)
    if launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _leave(error: Exception) -> int:
    """Write an error where the launcher looks for it, and return the exit code."""
    told, lost = _told(error), _is_loss(error)
    data = {
        "message": told.what,
        "timestamp": int(time.time()),
        "at": time.time(),
        "error": [told.what, told.why, told.fix],
        "exit_code": told.exit_code,
        "lost": lost,
        "traceback": "" if told is error or lost else traceback.format_exc(),
    }
    path = Path(os.environ[ERROR_FILE])
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data), encoding="utf-8")
    part.replace(path)  # whole, should the launcher end this process now
    return told.exit_code


def _told(error: Exception) -> HgpuError:
    if isinstance(error, HgpuError):
        return error
    why = f"{type(error).__name__}: {error}".partition("\n")[0]
    process = f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}"
    if _is_loss(error):
        return EngineError(f"{process} lost the others", why, f"see what ended elsewhere, then {AGAIN}")
    return EngineError(f"{process} crashed", why, AGAIN)


def _is_loss(error: Exception) -> bool:
    """Tell whether an exchange failed, as it does when another process has ended."""
    from torch import distributed

    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()
