"""The process that measures: `python -m hgpu.profilers.vllm_worker JOB.json`.

It holds the engine, so that a crash of the engine, or of this, costs one point and not the
profile. It dies with its parent. Events (`vllm_events`) go to the standard output, the
measurements to the journal, and whatever the engine prints to the standard error.
"""

import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hgpu.core.errors import EngineError, HgpuError
from hgpu.profilers import vllm_host
from hgpu.profilers.design import Script
from hgpu.profilers.die_with import die_with
from hgpu.profilers.journal import Header, Run, Skip, append, read
from hgpu.profilers.refine import next_run
from hgpu.profilers.telemetry import Sampler, sampling
from hgpu.profilers.vllm_job import KV_SHARE, WorkerJob, missing, points, runnable, scripts_of, warm_ups
from hgpu.profilers.vllm_play import played

if TYPE_CHECKING:
    from hgpu.profilers.vllm_engine import TimedEngine

REASON_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Bench:
    """What a point is measured with."""

    job: WorkerJob
    engine: "TimedEngine"
    sampler: Sampler
    events: TextIO

    @property
    def journal(self) -> Path:
        """Where its runs go."""
        return Path(self.job.journal)


class PointFailed(Exception):
    """The engine failed in the middle of a script; it can't be trusted with another."""


def main(file: str) -> int:
    """Run a job; return the exit status."""
    events = own_stdout()
    job = WorkerJob(**json.loads(Path(file).read_text(encoding="utf-8")))
    die_with(job.parent_pid)
    try:
        if job.cores:
            os.sched_setaffinity(0, job.cores)  # before vLLM: threads and processes inherit it
        measure(job, events)
    except PointFailed as failure:
        say(events, {"failed": str(failure)})
        return 1
    except HgpuError as error:
        say(events, {"error": [error.what, error.why, error.fix]})
        return 1
    say(events, {"finished": True})
    return 0


def measure(job: WorkerJob, events: TextIO) -> None:
    """Run every script and repeat that the journal lacks, and journal each."""
    vllm_host.require_vllm()
    from hgpu.profilers.vllm_engine import start_engine

    say(events, {"done": 0, "total": 0, "at": "starting vLLM"})
    engine = start_engine(job.arguments, job.seed)
    path = Path(job.journal)
    header = _header(path, job, engine)
    _note_skips(path, job, header)
    for script in warm_ups(job, header):
        played(engine, script)
    with sampling(vllm_host.visible_devices()) as sampler:
        bench = Bench(job, engine, sampler, events)
        _base_repeats(bench, header)
        _refine(bench, header)


def _base_repeats(bench: Bench, header: Header) -> None:
    """Run what the journal lacks."""
    job = bench.job
    left, total = missing(job, read(bench.journal, job.key)), len(points(job, header))
    for number, (script, repeat) in enumerate(left, start=total - len(left) + 1):
        _measure_point(bench, script, repeat)
        say(bench.events, {"done": number, "total": total, "at": script.name})


def _refine(bench: Bench, header: Header) -> None:
    """Run uncertain scripts again, as far as the budget goes."""
    job, scripts = bench.job, runnable(bench.job, header)

    def next_one() -> tuple[Script, int] | None:
        return next_run(scripts, read(bench.journal, job.key), job.target_error, job.budget_s)

    while (more := next_one()) is not None:
        _measure_point(bench, *more)
        done = len(read(bench.journal, job.key).runs)
        say(bench.events, {"done": done, "total": done, "at": f"{more[0].name} again"})


def _measure_point(bench: Bench, script: Script, repeat: int) -> None:
    """Run a script and journal it. Whatever an engine raises is this point's failure."""
    say(bench.events, {"begins": [script.name, repeat]})
    try:
        bench.sampler.begin()
        steps = played(bench.engine, script)
        telemetry = bench.sampler.end()
    except Exception as error:
        traceback.print_exc()  # to the log
        raise PointFailed(reason_of(error)) from error
    append(bench.journal, Run(script.name, repeat, steps, telemetry))


def reason_of(error: Exception) -> str:
    """Return in a line why an engine failed; running out of memory is told from other errors."""
    if isinstance(error, HgpuError):
        return ": ".join(part for part in (error.what, error.why) if part)
    first = (str(error).strip().splitlines() or [""])[0]
    text = f"{type(error).__name__}: {first}".removesuffix(": ")[:REASON_LENGTH]
    starved = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
    return f"it ran out of memory ({text})" if starved else text


def _header(path: Path, job: WorkerJob, engine: "TimedEngine") -> Header:
    """Return the journal's header, made where there is none; refuse to mix two engines."""
    capacity = engine.kv_capacity_tokens
    setup = min(job.setup_tokens, int(capacity * KV_SHARE / 2))
    driver, machine = vllm_host.driver_and_machine()
    mine = Header(job.key, vllm_host.vllm_version(), driver, machine, capacity, setup)
    there = read(path, job.key).header
    if there is None:
        append(path, mine)
        return mine
    if (there.engine, there.driver, there.machine) != (mine.engine, mine.driver, mine.machine):
        raise EngineError(
            f"the journal was begun by {there.engine} on {there.machine}",
            f"this is {mine.engine} on {mine.machine}, and the two can't share a profile",
            f"delete '{path}' to start afresh",
        )
    return there


def _note_skips(path: Path, job: WorkerJob, header: Header) -> None:
    noted = {skip.script for skip in read(path, job.key).skips}
    for script, reason in scripts_of(job, header):
        if reason and script.name not in noted:
            append(path, Skip(script.name, reason))


def own_stdout() -> TextIO:
    """Return the standard output, and send whatever else is printed to the standard error."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def say(events: TextIO, event: dict[str, Any]) -> None:
    """Write an event for the parent."""
    events.write(json.dumps(event) + "\n")
    events.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
