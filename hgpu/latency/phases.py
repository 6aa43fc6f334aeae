"""Which prompt an engine computes next, and how much of it beside the requests that decode.

Shared by the simulator and by the scheduler that runs inside vLLM, so that both decide alike; pure, and
without anything heavy.

**Order.** Shortest prompt first with ageing, after Nexus (arXiv 2507.06608, its prefill queue): the prompt
with the least `remaining tokens − γ · age` is next. The ages of all grow alike, so the difference of two
scores never changes: the order is that of `tokens + γ · arrival`, fixed when a request comes. Hence the
bound: a prompt of L tokens is never overtaken by a request that comes L/γ seconds after it, or later.

**Budget.** A request with y tokens, the first one e seconds ago, keeps its TPOT objective if the next step
takes no longer than `objective · y − e`, its slack. A step may take the least slack of those that decode;
the budget is the most prompt tokens that the step model lets into it. Time that fast steps saved is spent on
larger chunks, which cost less a token. Where even a step without a prompt takes longer than the objective,
holding prompts back can't keep it: the step is as large as vLLM's own ("mixed unless the prediction says
no", as in DuetServe). A request whose slack is gone (it was preempted, or came through such a spell) is let
off what it lost: it would hold every prompt back until it had caught up. It is counted anew from there, and
keeps the pace of the objective.

**Phase.** A step is mixed, or it is a decode step because the budget lets no prompt in. A step of prompts
alone is never chosen: each term of the step model is subadditive, so one step of both takes no longer than
one of each (a property test holds that), and the decodes would wait for nothing.
"""

from dataclasses import dataclass
from math import inf

from hgpu.core.phases import PhaseOptions
from hgpu.core.step import StepBatch, StepModel


@dataclass(frozen=True, slots=True)
class Pending:
    """The prompt that is next: its tokens that are computed, and those that are to be."""

    computed: int
    remaining: int


def place(tokens: int, arrival_s: float, ageing_tok_per_s: float) -> tuple[float, float]:
    """Return a request's sort key in the queue: the least is next."""
    return (tokens + ageing_tok_per_s * arrival_s, arrival_s)


def overtaken_s(tokens: int, ageing_tok_per_s: float) -> float:
    """Return the seconds after which nobody that comes overtakes a prompt of `tokens`."""
    return tokens / ageing_tok_per_s


def slack_s(tpot_s: float, tokens: int, elapsed_s: float) -> float:
    """Return the seconds that the next step may take for a request to keep its TPOT.

    It has `tokens` tokens, the first of them `elapsed_s` ago.
    """
    return tpot_s * tokens - elapsed_s


def counted_from_s(tpot_s: float, tokens: int, first_s: float, now_s: float) -> float:
    """Return when a request with `tokens` tokens counts as having had its first one.

    That is `first_s`, unless its slack is gone: then it is when one that kept the pace would have had it.
    """
    if slack_s(tpot_s, tokens, now_s - first_s) > 0:
        return first_s
    return now_s - tpot_s * (tokens - 1)


def prompt_tokens(
    step: StepModel,
    options: PhaseOptions,
    decodes: StepBatch,
    pending: Pending | None,
    limit: int,
    allowed_s: float,
) -> int:
    """Return the most prompt tokens of the next step; 0 makes it a decode step.

    `decodes` is the step without prompts, `limit` the prompt tokens that fit beside them, and `allowed_s` the
    least slack of those that decode. With no decodes the prompts get all.
    """
    if pending is None or not decodes.decode_seqs or options.tpot_s is None:
        return limit
    if step.step_s(decodes) > options.tpot_s:
        return limit
    tokens = budget(step, decodes, pending, limit, allowed_s)
    return tokens if tokens >= min(options.least_tokens, pending.remaining, limit) else 0


def budget(step: StepModel, decodes: StepBatch, pending: Pending, limit: int, allowed_s: float) -> int:
    """Return the most tokens, `limit` at most, whose step takes no longer than `allowed_s`.

    Tokens beyond the pending prompt's are those of prompts behind it, taken as its own continuation: what is
    later in a prompt has more context, so that no step is larger than predicted.
    """
    if allowed_s == inf or step.step_s(beside(decodes, pending, limit)) <= allowed_s:
        return limit
    fits, breaks = 0, limit
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        if step.step_s(beside(decodes, pending, middle)) <= allowed_s:
            fits = middle
        else:
            breaks = middle
    return fits


def beside(decodes: StepBatch, pending: Pending, tokens: int) -> StepBatch:
    """Return the step of the decodes and `tokens` of the pending prompt."""
    return StepBatch(
        prefill_tokens=tokens,
        prefill_seqs=1.0 if tokens else 0.0,
        prefill_pairs=tokens * pending.computed + tokens * (tokens + 1) / 2,
        prefill_context_tokens=pending.computed if tokens else 0.0,
        decode_seqs=decodes.decode_seqs,
        decode_context_tokens=decodes.decode_context_tokens,
    )
