"""The mock server as a process of its own, on another core where there is one."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hgpu.core.errors import EngineError
from hgpu.runtime.ports import local_url


@contextmanager
def mock_server(*options: str, cores: Sequence[int] = ()) -> Iterator[str]:
    """Run `hgpu.bench.mock_server` with these options, bound to `cores` if given, and yield its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hgpu.bench.mock_server", *options], stdout=subprocess.PIPE, text=True
    )
    try:
        if cores:
            os.sched_setaffinity(process.pid, cores)
        assert process.stdout is not None  # asked for above
        words = process.stdout.readline().split()
        if not words:
            raise EngineError("the mock server didn't start", "it said nothing", "see its message above")
        url = local_url(int(words[-1]))
        yield url.replace("http:", "https:") if "--certificate" in options else url
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@contextmanager
def apart() -> Iterator[tuple[int, ...]]:
    """Bind this process to its first core and yield the others, for the server; none where there is one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        yield ()
        return
    os.sched_setaffinity(0, cores[:1])
    try:
        yield tuple(cores[1:])
    finally:
        os.sched_setaffinity(0, cores)
