"""A scheduler for vLLM's `--scheduler-cls` that decides about prompts by `hgpu.latency.phases`.

vLLM's own `schedule` does all the work: it is given a queue in another order, or fewer tokens. So preemption,
prefix caching, connectors and structured output are vLLM's, and a request computes what it would have
computed, only at another time.

Imported by vLLM only. Engines that schedule asynchronously (GPUs) use `AsyncPhaseScheduler`.
"""

import time
from collections.abc import Sequence
from math import inf
from typing import Any
from weakref import WeakKeyDictionary

from vllm.v1.core.sched.scheduler import Scheduler

from hgpu.core.step import StepBatch
from hgpu.latency.phases import Pending, counted_from_s, prompt_tokens, slack_s
from hgpu.runtime.vllm.features import require_config, require_features
from hgpu.runtime.vllm.options import phases_of
from hgpu.runtime.vllm.phase_queue import PhaseQueue


class Phased:
    """What is laid over one of vLLM's schedulers. `first_s` holds when each had its first token."""

    asynchronous = False
    vllm_config: Any
    running: list[Any]
    waiting: Any
    max_num_scheduled_tokens: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require_features()
        super().__init__(*args, **kwargs)
        require_config(self.vllm_config, self.asynchronous)
        self.phases = phases_of(self.vllm_config.additional_config)
        self.first_s: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        ageing_tok_per_s = self.phases.options.ageing_tok_per_s
        if ageing_tok_per_s is not None:
            self.waiting = PhaseQueue(ageing_tok_per_s)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Return the next step: vLLM's own, within the budget."""
        most = self.max_num_scheduled_tokens
        self.max_num_scheduled_tokens = self._budget(most)
        try:
            return super().schedule(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.max_num_scheduled_tokens = most

    def _budget(self, most: int) -> int:
        """Return the tokens of the next step, all in all."""
        step, options = self.phases.step, self.phases.options
        if step is None or options.tpot_s is None:
            return most
        decodes = [request for request in self.running if _decodes(request)]
        least_s = self._least_slack_s(decodes, options.tpot_s)
        pending = self._pending()
        batch = StepBatch(
            decode_seqs=len(decodes),
            decode_context_tokens=sum(request.num_computed_tokens + 1 for request in decodes),
        )
        taken = sum(1 + len(request.spec_token_ids) for request in decodes)
        return taken + prompt_tokens(step, options, batch, pending, most - taken, least_s)

    def _least_slack_s(self, decodes: Sequence[Any], tpot_s: float) -> float:
        """Return the seconds that the next step may take for all to keep their TPOT."""
        now_s, least_s = time.monotonic(), inf
        for request in decodes:
            tokens = _outputs(request)
            first_s = counted_from_s(tpot_s, tokens, self.first_s.get(request, now_s), now_s)
            self.first_s[request] = first_s
            least_s = min(least_s, slack_s(tpot_s, tokens, now_s - first_s))
        return least_s

    def _pending(self) -> Pending | None:
        """Return the prompt that is next: one that is partly computed, else the first in the queue."""
        partial = next((request for request in self.running if not _decodes(request)), None)
        if partial is None and not self.waiting:
            return None
        request = partial or self.waiting.peek_request()
        return Pending(request.num_computed_tokens, max(1, _left(request)))


class PhaseScheduler(Phased, Scheduler):  # type: ignore[misc]  # vllm has no types where it isn't installed
    """The phase scheduler of an engine that schedules one step at a time."""


def _decodes(request: Any) -> bool:
    """Say whether a request is past its prompt, and past what a preemption made it compute again."""
    return _outputs(request) > 0 and _left(request) <= 1


def _outputs(request: Any) -> int:
    """Return the output tokens that a request has, or has under way."""
    return int(request.num_output_tokens + request.num_output_placeholders)


def _left(request: Any) -> int:
    """Return the tokens that are known and not computed; a request that decodes has one."""
    known: int = request.num_tokens + request.num_output_placeholders
    return known - int(request.num_computed_tokens)
