"""The measuring process as its parent sees it: started, followed, and never left behind."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import psutil

from hgpu.core.errors import EngineError
from hgpu.profilers.journal import read
from hgpu.profilers.last_words import last_words
from hgpu.profilers.vllm_job import WorkerJob

Process: TypeAlias = "subprocess.Popen[str]"
Progress = Callable[[int, int, str], None]

EXIT_S = 10.0  # for the engine's own processes to follow the worker


@contextmanager
def worker(order: WorkerJob, environment: Mapping[str, str], python: str) -> Iterator[Process]:
    """Start the worker; whatever happens, leave no process of it behind."""
    path = Path(order.journal)
    file = path.with_suffix(".job.json")
    file.write_text(json.dumps(asdict(order)), encoding="utf-8")
    command = [python, "-m", "hgpu.profilers.vllm_worker", str(file)]
    with (
        path.with_suffix(".log").open("wb") as log,
        subprocess.Popen(
            command,
            env=os.environ | environment | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
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


def follow(process: Process, path: Path, key: str, progress: Progress) -> None:
    """Relay the worker's events until it ends; raise EngineError where it fails."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if "error" in event:
            raise EngineError(*event["error"])
        progress(event["done"], event["total"], event["at"])
    status = process.wait()
    if status:
        kept = len(read(path, key).runs)
        log = path.with_suffix(".log")
        raise EngineError(
            f"vLLM failed (exit status {status})",
            last_words(log),
            f"see '{log}'; the same command resumes: {kept} finished points are kept",
        )
