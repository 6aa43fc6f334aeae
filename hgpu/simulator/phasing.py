"""What the shared policy (`hgpu.latency.phases`) decides in a simulated engine.

The same functions decide inside vLLM (`hgpu.runtime.vllm.phase_scheduler`); here are the queue and the books
that they need: what an engine's requests wait in, and since when each that decodes counts as decoding.
"""

from bisect import insort_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from hgpu.core.errors import InputError
from hgpu.core.phases import PhaseOptions
from hgpu.core.step import StepBatch, StepModel
from hgpu.latency.phases import Pending, counted_from_s, place, prompt_tokens, slack_s

SLIVER_S = 1e-9  # a slack below this may be what rounding left of none


class PromptQueue(deque[int]):
    """Requests that wait, the shortest prompt first with ageing (`phases.place`).

    It stands for the queue of an engine without the policy: wherever a request is added, it gets its place.
    A preempted one has its output so far to compute again, and came when it first came. Of equal places,
    the one that was added first is first. `tokens` and `arrival_s` are the engine's own lists, by request.
    """

    def __init__(self, ageing_tok_per_s: float, tokens: Sequence[int], arrival_s: Sequence[float]) -> None:
        super().__init__()
        self._ageing, self._tokens, self._arrival_s = ageing_tok_per_s, tokens, arrival_s

    def extend(self, requests: Iterable[int]) -> None:
        """Add requests that came."""
        for request in requests:
            insort_right(self, request, key=self._place)

    def appendleft(self, request: int) -> None:
        """Add a preempted request: the place decides, and not that it comes back."""
        insort_right(self, request, key=self._place)

    def _place(self, request: int) -> tuple[float, float]:
        return place(self._tokens[request], self._arrival_s[request], self._ageing)


def queue_of(options: PhaseOptions | None, tokens: Sequence[int], arrival_s: Sequence[float]) -> deque[int]:
    """Return an empty queue: first come, first served unless the options age."""
    if options is None or options.ageing_tok_per_s is None:
        return deque()
    return PromptQueue(options.ageing_tok_per_s, tokens, arrival_s)


@dataclass(slots=True)
class Pace:
    """Holds those that decode to a TPOT objective. `first_s` says since when each counts as decoding."""

    step: StepModel
    options: PhaseOptions
    tpot_s: float
    first_s: dict[int, float] = field(default_factory=dict)

    def least_slack_s(self, decoding: Iterable[tuple[int, int]], now_s: float) -> float:
        """Return the seconds that the next step may take for all to keep their TPOT; infinite without any.

        `decoding` holds (request, tokens that it has). Who has lost its slack is counted anew. To be called
        before every step that may be larger, or slower, than one that keeps the objective.
        """
        least_s = inf
        for request, tokens in decoding:
            first_s = counted_from_s(self.tpot_s, tokens, self.first_s.get(request, now_s), now_s)
            self.first_s[request] = first_s
            least_s = min(least_s, slack_s(self.tpot_s, tokens, now_s - first_s))
        return least_s

    def prompt_tokens(self, decodes: StepBatch, pending: Pending | None, limit: int, allowed_s: float) -> int:
        """Return the most prompt tokens of the next step, `limit` at most (`phases.prompt_tokens`)."""
        return prompt_tokens(self.step, self.options, decodes, pending, limit, allowed_s)


def pace_of(options: PhaseOptions | None, step: StepModel) -> Pace | None:
    """Return the books of a TPOT objective; None without one."""
    if options is None or options.tpot_s is None:
        return None
    return Pace(step, options, options.tpot_s)


def check_phases(options: PhaseOptions | None) -> None:
    """Refuse what the policy can't do. Raises InputError."""
    if options is None:
        return
    for name in ("ageing_tok_per_s", "tpot_s"):
        amount = getattr(options, name)
        if amount is not None and not 0 < amount < inf:
            raise InputError(f"bad {name}={amount} of the phases", "it must be above 0, and finite")
