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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hgpu.core.errors import EngineError, HgpuError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.step import StepBatch
from hgpu.profilers.design import Script, design
from hgpu.profilers.journal import Header, Run, Skip, append, read

if TYPE_CHECKING:
    from hgpu.profilers.vllm_engine import TimedEngine

PR_SET_PDEATHSIG = 1
KV_SHARE = 0.8  # of the cache: beyond it an engine may preempt, which no script means to measure
WARM_UPS = (
    Script("warm-up", prefill_tokens=64),
    Script("warm-up", decode_seqs=2, decode_context=16, decode_steps=2, prefill_tokens=32),
)


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """What the parent asks for; the file that it writes is these fields as JSON."""

    key: str
    journal: str
    parent_pid: int
    cores: tuple[int, ...]
    repeats: int
    decode_steps: int
    setup_tokens: int
    seed: int
    options: dict[str, Any]
    arguments: dict[str, Any]

    @property
    def engine(self) -> EngineOptions:
        """The engine options that the scripts are designed for."""
        return EngineOptions(**self.options)


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
    scripts = list(_fitting(path, job, header))
    for script in WARM_UPS:
        _run(engine, script)
    points = [(script, repeat) for repeat in range(job.repeats) for script in scripts]
    finished = read(path, job.key).points
    for number, (script, repeat) in enumerate(points):
        if (script.name, repeat) not in finished:
            append(path, Run(script.name, repeat, tuple(_run(engine, script))))
        _say(events, {"done": number + 1, "total": len(points), "at": script.name})


def play(engine: "TimedEngine", script: Script) -> Iterator[tuple[StepBatch, float]]:
    """Yield the steps of a script: climb the rungs, decode on each, then prefill the prompt."""
    running = 0
    for rung in script.rungs:
        for _ in range(running, rung):
            engine.add(script.decode_context)
        running = rung
        decoded = 0
        while decoded < script.decode_steps:
            batch, seconds = engine.step()
            decoded += batch.decode_seqs == rung
            yield batch, seconds
    if script.prefill_tokens:
        engine.add(script.prefill_tokens)
        left = float(script.prefill_tokens)
        while left > 0:
            batch, seconds = engine.step()
            left -= batch.prefill_tokens
            yield batch, seconds


def unfit(script: Script, options: EngineOptions, kv_capacity_tokens: int) -> str:
    """Return why an engine can't run a script as it is meant, or an empty string."""
    if script.longest_prompt >= options.max_model_len:
        return f"its prompt of {script.longest_prompt} tokens reaches max_model_len {options.max_model_len}"
    if script.decode_seqs > options.max_num_seqs:
        return f"its {script.decode_seqs} sequences exceed max_num_seqs {options.max_num_seqs}"
    if script.kv_tokens > KV_SHARE * kv_capacity_tokens:
        share = f"{KV_SHARE:.0%} of the KV cache of {kv_capacity_tokens} tokens"
        return f"its {script.kv_tokens} KV tokens exceed {share}"
    return ""


def _run(engine: "TimedEngine", script: Script) -> list[tuple[StepBatch, float]]:
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


def _fitting(path: Path, job: WorkerJob, header: Header) -> Iterator[Script]:
    noted = {skip.script for skip in read(path, job.key).skips}
    for script in design(job.engine, header.setup_tokens, job.decode_steps):
        reason = unfit(script, job.engine, header.kv_capacity_tokens)
        if not reason:
            yield script
        elif script.name not in noted:
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
