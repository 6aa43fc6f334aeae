"""A load from as many processes as it needs, merged by request."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from math import ceil
from pickle import loads
from typing import Any

from hgpu.artifacts.payloads.load import Selftest
from hgpu.bench.outcomes import Outcomes, merged
from hgpu.bench.play import Job, play
from hgpu.bench.worker import HEAD_BYTES, packed, size_of
from hgpu.core.errors import EngineError

Say = Callable[[int], None]  # how many requests have ended
_HEAD_START_S = 0.05  # between the word to start and the start
_BUSY = 0.5  # of a core: with more, requests wait for one another in the generator


def send(job: Job, workers: int, finished: Say = lambda _: None) -> Outcomes:
    """Send a job from that many processes (1: from this one) and return what came of all its requests.

    `finished` hears how many have ended. Raises EngineError where a worker dies.
    """
    parts = job.parts(workers)
    if len(parts) == 1:
        return play(job, time.monotonic() + _HEAD_START_S, finished)
    return merged(asyncio.run(_all(parts, finished)))


def workers_for(rate_rps: float | None, selftest: Selftest | None, cores: int) -> int:
    """Return how many processes a rate needs, none of them busy for more than half of its core."""
    if rate_rps is None or selftest is None:
        return 1
    return max(1, min(cores, ceil(rate_rps / (_BUSY * selftest.requests_per_s_and_core))))


async def _all(parts: list[Job], finished: Say) -> list[Outcomes]:
    processes: list[Process] = []
    done = [0] * len(parts)

    def tell(share: int, count: int) -> None:
        done[share] = count
        finished(sum(done))

    try:
        for part in parts:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hgpu.bench.worker", stdin=PIPE, stdout=PIPE
            )
            processes.append(process)
            _stdin(process).write(packed(part))
        for process in processes:
            await _message(process)
        start = packed(time.monotonic() + _HEAD_START_S)
        for process in processes:
            _stdin(process).write(start)
        return await asyncio.gather(*(_outcomes(p, i, tell) for i, p in enumerate(processes)))
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*(process.wait() for process in processes))


async def _outcomes(process: Process, share: int, tell: Callable[[int, int], None]) -> Outcomes:
    while True:
        kind, value = await _message(process)
        if kind == "outcomes":
            outcomes: Outcomes = value
            return outcomes
        tell(share, value)


async def _message(process: Process) -> tuple[str, Any]:
    stream = process.stdout
    assert stream is not None  # asked for above
    try:
        head = await stream.readexactly(HEAD_BYTES)
        kind, value = loads(await stream.readexactly(size_of(head)))
    except asyncio.IncompleteReadError as error:
        raise EngineError(
            "a worker of the load generator died",
            f"process {process.pid} ended before its part did",
            "see its message above; run the same command again: finished points are kept",
        ) from error
    return kind, value


def _stdin(process: Process) -> asyncio.StreamWriter:
    assert process.stdin is not None  # asked for above
    return process.stdin
