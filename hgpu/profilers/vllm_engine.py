"""A vLLM engine in this process, stepped and timed one scheduler step at a time.

vLLM's V1 engine is driven through `LLM.llm_engine`; its scheduler is watched, never changed, so
that each time stands beside the batch that vLLM itself made. Scheduling is synchronous here:
a step's time holds its host work, which a server with asynchronous scheduling partly hides.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hgpu.core.errors import EngineError
from hgpu.core.step import StepBatch

IDLE_STEPS = 100  # steps in a row that compute nothing: the engine is stuck
FIRST_TOKEN = 10  # ids below are often special
TESTED = "install a vLLM between 0.26 and 0.32"


@dataclass(slots=True)
class TimedEngine:
    """`llm` is a `vllm.LLM`; `synchronize` waits for the device. Not thread-safe."""

    llm: Any
    seed: int
    synchronize: Callable[[], None]
    requests: list[str] = field(default_factory=list)
    scheduled: list[StepBatch] = field(default_factory=list)
    added: int = 0

    def __post_init__(self) -> None:
        """Watch the scheduler."""
        scheduler = scheduler_of(self.llm)
        plain = scheduler.schedule

        def schedule(*args: Any, **kwargs: Any) -> Any:
            computed = {name: request.num_computed_tokens for name, request in scheduler.requests.items()}
            output = plain(*args, **kwargs)
            self.scheduled.append(batch_of(output.num_scheduled_tokens, computed, scheduler.requests))
            return output

        scheduler.schedule = schedule

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.llm.llm_engine.vllm_config.model_config.max_model_len)

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        cache = self.llm.llm_engine.vllm_config.cache_config
        return int(cache.num_gpu_blocks) * int(cache.block_size)

    def add(self, prompt_tokens: int) -> None:
        """Queue a random prompt that would decode to the end of the context."""
        from vllm import SamplingParams

        vocabulary = self.llm.llm_engine.vllm_config.model_config.get_vocab_size()
        draw = random.Random(self.seed * 1_000_003 + self.added)
        tokens = [draw.randrange(FIRST_TOKEN, vocabulary) for _ in range(prompt_tokens)]
        params = SamplingParams(
            temperature=0.0,
            ignore_eos=True,
            detokenize=False,
            max_tokens=max(1, self.max_model_len - prompt_tokens),
        )
        name = f"hgpu-{self.added}"
        self.added += 1
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": tokens}, params)
        self.requests.append(name)

    def step(self) -> tuple[StepBatch, float]:
        """Run the engine until a step computed something; return its batch and its seconds."""
        for _ in range(IDLE_STEPS):
            self.scheduled.clear()
            self.synchronize()
            start_s = time.perf_counter()
            self.llm.llm_engine.step()
            self.synchronize()
            seconds = time.perf_counter() - start_s
            if len(self.scheduled) > 1:
                raise EngineError("vLLM scheduled twice in one step", fix=TESTED)
            if self.scheduled and self.scheduled[0].tokens:
                return self.scheduled[0], seconds
        raise EngineError(
            f"vLLM computed nothing in {IDLE_STEPS} steps",
            f"{len(self.requests)} requests wait, but the scheduler takes none up",
            "give the engine a larger KV cache, or a shorter max_model_len",
        )

    def clear(self) -> None:
        """Abort what still runs, so that the next script starts with an empty engine."""
        engine = self.llm.llm_engine
        engine.abort_request(self.requests)
        self.requests.clear()
        if engine.has_unfinished_requests():
            raise EngineError("vLLM kept requests that were aborted", fix=TESTED)


def start_engine(arguments: Mapping[str, object], seed: int) -> TimedEngine:
    """Load the model into an engine that schedules in this process, synchronously."""
    import torch
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs

    optional = {"async_scheduling": False, "disable_log_stats": True}
    known = {name: value for name, value in optional.items() if name in EngineArgs.__dataclass_fields__}
    llm = LLM(**arguments, **known, enable_prefix_caching=False, skip_tokenizer_init=True, seed=seed)
    on_device = torch.cuda.is_initialized()  # in this process: ranks of tensor parallelism are others
    return TimedEngine(llm, seed, torch.cuda.synchronize if on_device else _nothing)


def scheduler_of(llm: Any) -> Any:
    """Return the scheduler of an in-process V1 engine, or raise EngineError naming what lacks."""
    found = llm
    for name in ("llm_engine", "engine_core", "engine_core", "scheduler"):
        if not hasattr(found, name):
            raise _unknown_vllm(f"{type(found).__name__} has no '{name}'")
        found = getattr(found, name)
    for name in ("schedule", "requests"):
        if not hasattr(found, name):
            raise _unknown_vllm(f"{type(found).__name__} has no '{name}'")
    return found


def batch_of(
    scheduled: Mapping[str, int], computed: Mapping[str, int], requests: Mapping[str, Any]
) -> StepBatch:
    """Return the batch of a step, from the tokens scheduled and those computed before it."""
    prefills: list[tuple[int, int]] = []
    decodes: list[int] = []
    for name, new in scheduled.items():
        done = computed.get(name, 0)
        if done < requests[name].num_prompt_tokens:
            prefills.append((new, done))
        else:
            decodes.append(done + new)
    return _batch(prefills, decodes)


def _batch(prefills: Sequence[tuple[int, int]], decodes: Sequence[int]) -> StepBatch:
    return StepBatch(
        prefill_tokens=float(sum(new for new, _ in prefills)),
        prefill_seqs=float(len(prefills)),
        prefill_pairs=float(sum(new * done + new * (new + 1) / 2 for new, done in prefills)),
        prefill_context_tokens=float(sum(done for _, done in prefills)),
        decode_seqs=float(len(decodes)),
        decode_context_tokens=float(sum(decodes)),
    )


def _unknown_vllm(lack: str) -> EngineError:
    return EngineError(
        "this vLLM can't be stepped",
        f"{lack}; needed is a V1 engine in process: llm.llm_engine.engine_core.engine_core.scheduler",
        TESTED,
    )


def _nothing() -> None:
    """Nothing to wait for: a CPU, or ranks in processes of their own, whose tokens end a step."""
