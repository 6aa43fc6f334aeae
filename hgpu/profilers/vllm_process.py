"""The measuring process as its parent sees it: started, followed, and never left behind."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import psutil

from hgpu.core.errors import EngineError
from hgpu.profilers.journal import Failure, read
from hgpu.profilers.last_words import last_words
from hgpu.profilers.vllm_events import EXIT_S, Event, Limits, Process, events
from hgpu.profilers.vllm_job import WorkerJob

Progress = Callable[[int, int, str], None]


@contextmanager
def worker(order: WorkerJob, environment: Mapping[str, str], python: str) -> Iterator[Process]:
    """Start the worker; whatever happens, leave no process of it behind."""
    with child(
        "hgpu.profilers.vllm_worker", asdict(order), Path(order.journal), environment, python
    ) as process:
        yield process


@contextmanager
def child(
    module: str, order: Mapping[str, object], base: Path, environment: Mapping[str, str], python: str
) -> Iterator[Process]:
    """Run a module that holds an engine, its order and log beside `base`; leave no process of it behind."""
    file = base.with_suffix(".job.json")
    file.write_text(json.dumps(order), encoding="utf-8")
    with (
        base.with_suffix(".log").open("wb") as log,
        subprocess.Popen(
            [python, "-m", module, str(file)],
            env=os.environ | environment | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is for this process, which then ends the worker
        ) as process,
    ):
        try:
            yield process
        finally:
            _end(process)


def _end(process: Process) -> None:
    """Kill the worker, then wait for the processes of its engine, which end with it."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.kill()
    process.wait()
    for child in psutil.wait_procs(children, timeout=EXIT_S)[1]:
        child.kill()


def follow(process: Process, path: Path, key: str, progress: Progress, limits: Limits) -> Failure | None:
    """Relay the worker's events; return the failure of the point in flight, None where it finished.

    Raises EngineError where it fails otherwise: before the first point, or between two.
    """
    point: tuple[str, int] | None = None
    for event in events(process, limits):
        match event:
            case {"done": int(done), "total": int(total), "at": str(at)}:
                point = None
                progress(done, total, at)
            case {"begins": [str(script), int(repeat)]}:
                point = (script, repeat)
            case {"error": [str(what), str(why), str(fix)]}:
                raise EngineError(what, why, fix)
            case {"finished": True}:
                let_go(process)
                return None
            case _ if point is not None:
                return Failure(*point, _reason(event, path))
            case _:
                raise _failed(event, path, key)
    raise AssertionError("events end with one that ends this")


def let_go(process: Process) -> None:
    """Let an engine that has done its work shut down; one that won't is killed."""
    try:
        process.wait(EXIT_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _failed(event: Event, path: Path, key: str) -> EngineError:
    kept = len(read(path, key).runs)
    return EngineError(
        f"vLLM failed ({manner(event)})",
        last_words(path.with_suffix(".log")),
        f"see '{path.with_suffix('.log')}'; the same command resumes: {kept} finished points are kept",
    )


def _reason(event: Event, path: Path) -> str:
    """Return why a point failed: what the engine raised, or how its process ended and its last words."""
    match event:
        case {"failed": str(reason)}:
            return reason
        case {"ended": _}:
            return f"the engine died ({manner(event)}): {last_words(path.with_suffix('.log'))}"
        case _:
            return f"the engine was stopped: it {manner(event)}"


def manner(event: Event) -> str:
    """Say how a process ended that said nothing of it."""
    match event:
        case {"silent": limit_s}:
            return f"said nothing for {limit_s:.0f} s"
        case {"ended": int(status)} if status < 0:
            return signal.Signals(-status).name
        case {"ended": int(status)}:
            return f"exit status {status}"
        case {"ended": None}:
            return "it closed its output and went on"
        case _:
            return f"said what isn't an event: {event}"
