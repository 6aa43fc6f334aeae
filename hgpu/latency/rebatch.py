"""A routing trace as it would be with other batches, and routing without a trace.

What a cache must load depends on how many tokens share a step, and on how much a step resembles the one
before. So the decodes of a trace are first put in the order of their sequences, and a batch of B is then made
of the next token of each of B stretches of that order: each stretch is a sequence as it went, and the B
of them are as unlike as sequences are. A step of prompts holds tokens that follow one another.
"""

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import InputError
from hgpu.latency.routing import RoutingTrace


def by_sequence(trace: RoutingTrace) -> RoutingTrace:
    """Return a trace with the tokens of each sequence together, one a step.

    Where the trace doesn't say which they are, a sequence is what has the same place in each step.
    """
    places = trace.requests
    if places is None:
        starts = np.array([start for start, _ in trace.bounds])
        sizes = np.diff(np.append(starts, len(trace.steps)))
        places = np.arange(len(trace.steps)) - np.repeat(starts, sizes)
    order = np.argsort(places, kind="stable")
    return trace.ordered(order, np.arange(len(order)))


def rebatched(trace: RoutingTrace, tokens: int, most_steps: int, decodes: bool) -> RoutingTrace:
    """Return steps of so many `tokens` of a trace of sequences (`by_sequence`), `most_steps` at most.

    `decodes`: each token of a step is of another sequence; else they follow one another. Raises
    InputError where the trace has fewer tokens than one step.
    """
    rows = len(trace.steps)
    steps = min(rows // tokens, most_steps)
    if not steps:
        raise InputError(
            f"a routing trace of {rows} tokens has none of {tokens} in a step",
            "it can't be replayed at that batch",
            "record a longer one, or plan with fewer sequences and tokens in a step",
        )
    if decodes:
        stretch = rows // tokens
        order = np.arange(steps)[:, None] + stretch * np.arange(tokens)
    else:
        order = np.arange(steps * tokens).reshape(steps, tokens)
    return trace.ordered(order.ravel(), np.repeat(np.arange(steps), tokens))


def halves(trace: RoutingTrace) -> tuple[RoutingTrace, RoutingTrace]:
    """Return the first half of a trace, to learn from, and the second, to play; by sequences if it says them.

    Raises InputError for a trace of a single step.
    """
    if trace.requests is not None and len(np.unique(trace.requests)) > 1:
        first: NDArray[np.bool_] = trace.requests < np.median(np.unique(trace.requests))
    else:
        first = trace.steps < trace.steps[len(trace.steps) // 2]
    if first.all() or not first.any():
        raise InputError("a routing trace of one step can't be halved", "one half is to learn from")
    return trace.rows(first), trace.rows(~first)


def uniform_trace(experts: int, per_token: int, tokens: int, seed: int = 0) -> RoutingTrace:
    """Return one layer in which each token goes to any experts, whatever came before."""
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((tokens, experts)), axis=1)[:, None, :per_token].astype(np.int32)
    steps = np.arange(tokens)
    return RoutingTrace(experts, ids, steps, np.zeros(tokens, np.int64), np.zeros(tokens, bool))
