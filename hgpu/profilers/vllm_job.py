"""What the measuring process is asked for, and what of it is left to do."""

from dataclasses import dataclass
from typing import Any

from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions
from hgpu.profilers.design import Script, design
from hgpu.profilers.journal import Header, Journal

KV_SHARE = 0.8  # of the cache: beyond it an engine may preempt, which no script means to measure

WARM_UPS = (
    Script("warm-up", prefill_tokens=64),
    Script("warm-up", decode_seqs=1, decode_context=16, decode_steps=2),
    Script("warm-up", decode_seqs=2, decode_context=16, decode_steps=2, prefill_tokens=32),
)


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """What the parent asks for; the file that it writes is these fields as JSON.

    `failed` names the scripts at which an engine failed already: they aren't tried again.
    """

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
    budget_s: float = 0.0
    target_error: float = 0.0
    failed: tuple[str, ...] = ()

    @property
    def engine(self) -> EngineOptions:
        """The engine options that the scripts are designed for."""
        dtype = self.options.get("kv_cache_dtype")
        return EngineOptions(**{**self.options, "kv_cache_dtype": DType(dtype) if dtype else None})


def missing(job: WorkerJob, journal: Journal) -> list[tuple[Script, int]]:
    """Return the (script, repeat) pairs that a begun journal lacks, in the order to run them."""
    assert journal.header is not None
    planned, done = points(job, journal.header), journal.points
    return [(script, repeat) for script, repeat in planned if (script.name, repeat) not in done]


def scripts_of(job: WorkerJob, header: Header) -> list[tuple[Script, str]]:
    """Return every script of the design, each with why it can't be run ("": it can)."""
    scripts = design(job.engine, header.setup_tokens, job.decode_steps)
    return [(script, unfit(script, job.engine, header.kv_capacity_tokens)) for script in scripts]


def points(job: WorkerJob, header: Header) -> list[tuple[Script, int]]:
    """Return what to run; the repeats are the outer loop, so that drift hits all scripts alike."""
    return [(script, repeat) for repeat in range(job.repeats) for script in runnable(job, header)]


def runnable(job: WorkerJob, header: Header) -> list[Script]:
    """Return the scripts that fit the engine and haven't failed."""
    fitting = [script for script, reason in scripts_of(job, header) if not reason]
    return [script for script in fitting if script.name not in job.failed]


def warm_ups(job: WorkerJob, header: Header) -> list[Script]:
    """Return what a fresh engine runs unmeasured: kernels are compiled and memory is touched once."""
    return [script for script in WARM_UPS if not unfit(script, job.engine, header.kv_capacity_tokens)]


def unfit(script: Script, options: EngineOptions, kv_capacity_tokens: int) -> str:
    """Return why an engine can't run a script as it is meant, or an empty string."""
    if script.longest_prompt >= options.max_model_len:
        return f"its prompt of {script.longest_prompt} tokens reaches max_model_len {options.max_model_len}"
    if script.seqs > options.max_num_seqs:
        return f"its {script.seqs} sequences exceed max_num_seqs {options.max_num_seqs}"
    if script.kv_tokens > KV_SHARE * kv_capacity_tokens:
        share = f"{KV_SHARE:.0%} of the KV cache of {kv_capacity_tokens} tokens"
        return f"its {script.kv_tokens} KV tokens exceed {share}"
    return ""
