"""Answer 100 prompts greedily with real vLLM on one core under one scheduler.

argv: the core, the model's folder, the result's file, and the scheduler's options as JSON, or "stock".
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # so that the scheduler's steps can be seen from here

BLOCKS, BLOCK_TOKENS, SEQS, STEP_TOKENS = 40, 32, 16, 256


def prompts(tokens: int) -> list[list[int]]:
    """Return 100 prompts of many lengths; every other one begins with the same 96 tokens."""
    shared = [7 + n % (tokens - 7) for n in range(96)]
    tail = [[7 + (n * 31 + k * 17) % (tokens - 7) for k in range(4 + n * 37 % 300)] for n in range(100)]
    return [(shared if n % 2 else []) + own for n, own in enumerate(tail)]


def main(core: str, folder: str, to: str, rows: str) -> None:
    """Write what was answered and what the scheduler did."""
    os.sched_setaffinity(0, {int(core)})
    from vllm import LLM, SamplingParams

    from hgpu.runtime.vllm.options import KEY, SCHEDULER

    plugin: dict[str, Any] = {}
    if rows != "stock":
        plugin = {"scheduler_cls": SCHEDULER, "additional_config": {KEY: json.loads(rows)}}
    llm = LLM(
        folder,
        load_format="dummy",
        enforce_eager=True,
        dtype="float32",
        max_model_len=512,
        block_size=BLOCK_TOKENS,
        num_gpu_blocks_override=BLOCKS,
        max_num_seqs=SEQS,
        max_num_batched_tokens=STEP_TOKENS,
        enable_prefix_caching=True,
        **plugin,
    )
    scheduler: Any = llm.llm_engine.engine_core.engine_core.scheduler
    seen = watched(scheduler)
    answers = llm.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts(4096)],
        SamplingParams(temperature=0, max_tokens=48, ignore_eos=True),
        use_tqdm=False,
    )
    result = {
        "tokens": [answer.outputs[0].token_ids for answer in answers],
        "cached_tokens": sum(answer.num_cached_tokens for answer in answers),
        **seen,
    }
    Path(to).write_text(json.dumps(result))


def watched(scheduler: Any) -> dict[str, Any]:
    """Record what a scheduler does from now on.

    `order` has the prompts as they were begun, and `held_steps` counts the steps that left a begun prompt
    unfinished although vLLM's own budget had room for more of it.
    """
    seen: dict[str, Any] = {"preemptions": 0, "held_steps": 0, "order": []}
    preempt, schedule = scheduler._preempt_request, scheduler.schedule

    def preempt_request(*args: Any, **kwargs: Any) -> Any:
        seen["preemptions"] += 1
        return preempt(*args, **kwargs)

    def scheduled(*args: Any, **kwargs: Any) -> Any:
        step = schedule(*args, **kwargs)
        seen["order"] += [int(request.req_id.split("-")[0]) for request in step.scheduled_new_reqs]
        partial = any(
            request.num_computed_tokens < request.num_prompt_tokens for request in scheduler.running
        )
        if partial and step.total_num_scheduled_tokens < STEP_TOKENS:
            seen["held_steps"] += 1
        return step

    scheduler._preempt_request, scheduler.schedule = preempt_request, scheduled
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:])
