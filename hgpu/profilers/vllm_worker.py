"""The process that measures: `python -m hgpu.profilers.vllm_worker JOB.json`.

It holds the engine, so that a crash of the engine, or of this, costs one point and not the
profile. It dies with its parent. Progress and errors are JSON lines on the standard output, the
measurements go to the journal, and whatever the engine prints goes to the standard error.
"""

import ctypes
import importlib.util
import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hgpu.core.errors import EngineError, HgpuError
from hgpu.core.step import StepBatch
from hgpu.profilers.design import Script
from hgpu.profilers.journal import Header, Run, Skip, append, read
from hgpu.profilers.refine import next_run
from hgpu.profilers.vllm_job import KV_SHARE, WorkerJob, missing, points, scripts_of

if TYPE_CHECKING:
    from hgpu.profilers.vllm_engine import TimedEngine

Step = tuple[StepBatch, float]  # with its seconds

PR_SET_PDEATHSIG = 1
STALLED_STEPS = 16  # in which no prompt token is computed though one waits
WARM_UPS = (
    Script("warm-up", prefill_tokens=64),
    Script("warm-up", decode_seqs=2, decode_context=16, decode_steps=2, prefill_tokens=32),
)


def main(file: str) -> int:
    """Run a job; return the exit status."""
    events = _own_stdout()
    job = WorkerJob(**json.loads(Path(file).read_text(encoding="utf-8")))
    die_with(job.parent_pid)
    try:
        if job.cores:
            os.sched_setaffinity(0, job.cores)  # before vLLM: threads and processes inherit it
        measure(job, events)
    except HgpuError as error:
        _say(events, {"error": [error.what, error.why, error.fix]})
        return 1
    return 0


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies; exit if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(1)


def measure(job: WorkerJob, events: TextIO) -> None:
    """Run every script and repeat that the journal lacks, and journal each."""
    if importlib.util.find_spec("vllm") is None:
        raise EngineError(
            "vLLM isn't installed",
            f"'{sys.executable}' can't import vllm",
            "pip install 'hgpu[vllm]' (GPU), or make vllm (CPU)",
        )
    from hgpu.profilers.vllm_engine import start_engine

    _say(events, {"done": 0, "total": 0, "at": "starting vLLM"})
    engine = start_engine(job.arguments, job.seed)
    path = Path(job.journal)
    header = _header(path, job, engine)
    _note_skips(path, job, header)
    left = missing(job, read(path, job.key))
    for script in WARM_UPS if left else ():
        _run(engine, script)
    total = len(points(job, header))
    for number, (script, repeat) in enumerate(left, start=total - len(left) + 1):
        append(path, Run(script.name, repeat, tuple(_run(engine, script))))
        _say(events, {"done": number, "total": total, "at": script.name})
    _refine(job, engine, header, events)


def _refine(job: WorkerJob, engine: "TimedEngine", header: Header, events: TextIO) -> None:
    """Run uncertain scripts again, as far as the budget goes."""
    path = Path(job.journal)
    scripts = [script for script, reason in scripts_of(job, header) if not reason]
    while (more := next_run(scripts, read(path, job.key), job.target_error, job.budget_s)) is not None:
        script, repeat = more
        append(path, Run(script.name, repeat, tuple(_run(engine, script))))
        done = len(read(path, job.key).runs)
        _say(events, {"done": done, "total": done, "at": f"{script.name} again"})


def play(engine: "TimedEngine", script: Script) -> Iterator[Step]:
    """Yield the steps of a script: climb the rungs, decode on each, then prefill the prompt."""
    running = 0
    for rung in script.rungs:
        for _ in range(running, rung):
            engine.add(script.decode_context)
        running = rung
        yield from _steps(engine, script.decode_steps, partial(_decodes, rung))
    if script.prefill_tokens:
        engine.add(script.prefill_tokens)
        yield from _steps(engine, script.prefill_tokens, lambda batch: batch.prefill_tokens)


def _decodes(rung: int, batch: StepBatch) -> float:
    return float(batch.decode_seqs == rung)


def _steps(engine: "TimedEngine", wanted: float, gain: Callable[[StepBatch], float]) -> Iterator[Step]:
    """Yield steps until their gains add up to what is wanted; raise where prompts don't move."""
    stalled = 0
    while wanted > 0:
        batch, seconds = engine.step()
        yield batch, seconds
        gained = gain(batch)
        wanted -= gained
        stalled = 0 if gained or batch.prefill_tokens else stalled + 1
        if stalled > STALLED_STEPS:
            raise EngineError(
                f"vLLM left a prompt waiting for {STALLED_STEPS} steps",
                f"{batch.seqs:.0f} sequences run, and it takes up no other",
                "profile with a larger max_num_seqs or KV cache",
            )


def _run(engine: "TimedEngine", script: Script) -> list[Step]:
    try:
        return list(play(engine, script))
    finally:
        engine.clear()


def _header(path: Path, job: WorkerJob, engine: "TimedEngine") -> Header:
    """Return the journal's header, made where there is none; refuse to mix two engines."""
    capacity = engine.kv_capacity_tokens
    setup = min(job.setup_tokens, int(capacity * KV_SHARE / 2))
    mine = Header(job.key, _version(), *_machine(), capacity, setup)
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


def _version() -> str:
    import vllm

    return f"vllm {vllm.__version__}"


def _machine() -> tuple[str, str]:
    """Return the driver's version (empty on a CPU) and what the engine runs on."""
    import torch

    if torch.cuda.is_available():
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlSystemGetDriverVersion(), torch.cuda.get_device_name(0)
    return "", f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _own_stdout() -> TextIO:
    """Return the standard output, and send whatever else is printed to the standard error."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _say(events: TextIO, event: dict[str, Any]) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
