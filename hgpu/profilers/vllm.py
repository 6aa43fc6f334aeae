"""Profiling a real vLLM on this machine: every step timed, every finished point kept.

The measuring is done by child processes (`vllm_attempts`). What they have finished is in a journal,
so that after a crash, a kill or a Ctrl-C the same job goes on where it stopped.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from hgpu.artifacts.digest import digest_of
from hgpu.core.errors import HgpuError, InputError
from hgpu.core.gpu import GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import Mode, OperatingPoint
from hgpu.profilers.design import design
from hgpu.profilers.journal import read
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.telemetry_rules import valid_runs
from hgpu.profilers.vllm_args import engine_arguments, engine_environment
from hgpu.profilers.vllm_attempts import attempt_all
from hgpu.profilers.vllm_events import Limits
from hgpu.profilers.vllm_job import WorkerJob
from hgpu.profilers.vllm_process import Progress
from hgpu.profilers.vllm_result import nothing_measured, result_of

SETUP_TOKENS_CPU = 1024
SETUP_TOKENS_GPU = 131_072
START_LIMIT_S = 3600.0  # weights may have to be fetched, and kernels compiled
POINT_LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class VllmJob:
    """What to profile, on which cores or devices of this machine.

    `source` is what vLLM loads: a model folder or a Hugging Face id. `setup_tokens` bounds the
    prompts that are prefilled only to be decoded; None takes what suits the hardware. After the
    repeats, uncertain scripts are run again until every sample is within `target_error` or
    `budget_s` engine seconds are spent; with a budget of 0, none is. An engine that takes longer
    than a limit to start, or to run a script once, is stopped.
    """

    source: str
    model: ModelSpec
    gpu: GpuType
    point: OperatingPoint
    load_format: str = "auto"
    repeats: int = 3
    decode_steps: int = 8
    setup_tokens: int | None = None
    seed: int = 0
    cores: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    budget_s: float = 0.0
    target_error: float = 0.05
    start_limit_s: float = START_LIMIT_S
    point_limit_s: float = POINT_LIMIT_S

    @property
    def key(self) -> str:
        """Digest of everything that the measurement depends on."""
        scripts = design(self.point.engine, self._setup_tokens, self.decode_steps)
        fields = {
            "source": self.source,
            "model": self.model.digest,
            "gpu": self.gpu.name,
            "point": asdict(self.point),
            "load_format": self.load_format,
            "repeats": self.repeats,
            "scripts": [asdict(script) for script in scripts],
            "setup_tokens": self._setup_tokens,
            "seed": self.seed,
            "cores": self.cores,
            "gpus": self.gpus,
        }
        return digest_of(fields)

    @property
    def _setup_tokens(self) -> int:
        default = SETUP_TOKENS_CPU if self.gpu.is_cpu else SETUP_TOKENS_GPU
        return default if self.setup_tokens is None else self.setup_tokens

    def for_worker(self, journal: Path) -> WorkerJob:
        """Return what the worker is told; this process is the parent that it dies with."""
        return WorkerJob(
            key=self.key,
            journal=str(journal),
            parent_pid=os.getpid(),
            cores=self.cores if self.gpu.is_cpu else (),
            repeats=self.repeats,
            decode_steps=self.decode_steps,
            setup_tokens=self._setup_tokens,
            seed=self.seed,
            options=asdict(self.point.engine),
            budget_s=self.budget_s,
            target_error=self.target_error,
            arguments=engine_arguments(self.source, self.point, self.gpu, self.load_format),
        )


def profile_vllm(
    job: VllmJob, folder: Path, progress: Progress, python: str = sys.executable
) -> ProfileResult:
    """Measure `job`, going on with its journal in `folder` where there is one.

    `progress` is called with points done, points in all (0: not known yet) and the one at hand.
    A script at which vLLM fails is left out, with a problem that says so. Raises InputError where
    the job can't run, HgpuError where it runs already, and EngineError where vLLM doesn't start or
    fails again and again; what was finished is kept.
    """
    refuse_unmeasurable(job)
    began_s = time.monotonic()
    path = journal_path(job, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(path):
        environment = engine_environment(job.source, job.point, job.gpu, job.cores, job.gpus)
        limits = Limits(job.start_limit_s, job.point_limit_s)
        attempt_all(job.for_worker(path), environment, python, progress, limits)
        journal = read(path, job.key)
    if not valid_runs(journal.runs):
        raise nothing_measured(job.point.name, journal, path)
    return result_of(journal, time.monotonic() - began_s)


def journal_path(job: VllmJob, folder: Path) -> Path:
    """Return where the job's journal lies: a changed job has another."""
    return folder / "journal" / f"profile-{job.key[:12]}.jsonl"


def forget_journal(job: VllmJob, folder: Path) -> None:
    """Delete the journal, its log and its lock, once the profile is saved."""
    path = journal_path(job, folder)
    for suffix in (".jsonl", ".log", ".job.json", ".lock"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def refuse_unmeasurable(job: VllmJob) -> None:
    """Raise InputError for a job that no machine could run."""
    if job.point.mode is Mode.OFFLOAD:
        raise InputError(
            f"vLLM can't be profiled in mode '{job.point.mode}'",
            "its steps depend on where tokens are routed: made-up prompts are routed otherwise than yours",
            "estimate it, from a routing recorded with `hgpu profile --mode offload`",
        )
    if job.point.mode is not Mode.MIXED:
        raise InputError(
            f"vLLM can't be profiled in mode '{job.point.mode}'",
            "the other modes are modelled on top of a profile of mode 'mixed'",
            "profile the operating point in mode 'mixed'",
        )
    if not job.model.splits_over(job.point.tp):
        heads, kv_heads = job.model.attention_heads, job.model.kv_heads
        raise InputError(
            f"{job.point.tp} ranks can't share the heads of {job.model.name}",
            f"it has {heads} attention heads and {kv_heads} KV heads, and vLLM splits neither",
            "profile with a tensor parallel degree that divides both",
        )
    if job.source.startswith(("/", ".")) and not (Path(job.source) / "config.json").is_file():
        raise InputError(f"no model in '{job.source}'", "it holds no config.json", "give a model folder")


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            yield
    except Timeout as error:
        raise HgpuError(
            "this profile is being measured already",
            f"another process holds '{path.with_suffix('.lock')}'",
            "wait for it to end, or stop it",
        ) from error
