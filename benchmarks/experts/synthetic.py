"""Made-up routing for models that nobody here can run: skewed, and following from the token as is real.

Each token id has experts of its own in every layer, drawn without replacement with a weight of rank^-SKEW; an
occurrence keeps each of them with probability FROM_TOKEN and otherwise draws another. Token ids follow a Zipf
law. The constants are set so that 32 experts, 4 a token, in 4 layers hit what was measured on a small model
trained on Python source: with slots for a quarter of the experts and one sequence, LFU .65 (measured .645)
and LRU .56 (.586); for half of them, LFU .86 (.906); a token table recalls .75 (.76 to .86), and the next
gate GATE (.84 to .89).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hgpu.latency.routing import RoutingTrace

SKEW, FROM_TOKEN, GATE = 1.2, 0.9, 0.86
VOCABULARY = 2000


def synthetic_trace(experts: int, per_token: int, layers: int, tokens: int, seed: int) -> RoutingTrace:
    """Return a trace of one sequence, a token a step; the routing of token ids is the same for every seed."""
    home = np.random.default_rng(0)
    rng = np.random.default_rng(seed + 1)
    law = 1 / np.arange(1, VOCABULARY + 1)
    ids = rng.choice(VOCABULARY, tokens, p=law / law.sum())
    routed = np.empty((tokens, layers, per_token), np.int32)
    gate = np.empty_like(routed)
    for layer in range(layers):
        weights = np.arange(1, experts + 1) ** -SKEW
        weights = weights[home.permutation(experts)]
        own = _drawn(home, weights, VOCABULARY, per_token)
        routed[:, layer] = _mixed(rng, own[ids], weights, 1 - FROM_TOKEN)
        gate[:, layer] = _mixed(rng, routed[:, layer], weights, 1 - GATE) if layer else -1
    trace = RoutingTrace(experts, routed, np.arange(tokens), ids.astype(np.int64), np.zeros(tokens, bool))
    return replace(trace, next_gate=gate)


def _drawn(
    rng: np.random.Generator, weights: NDArray[np.float64], rows: int, count: int
) -> NDArray[np.int32]:
    """Draw `count` distinct experts a row (Gumbel top-k)."""
    keys = np.log(weights) + rng.gumbel(size=(rows, len(weights)))
    return np.argsort(-keys, axis=1)[:, :count].astype(np.int32)


def _mixed(
    rng: np.random.Generator, chosen: NDArray[np.int32], weights: NDArray[np.float64], change: float
) -> NDArray[np.int32]:
    """Return the chosen experts (N, k) with each exchanged for another with a probability."""
    keys = np.log(weights) + rng.gumbel(size=(len(chosen), len(weights)))
    kept = rng.random(chosen.shape) >= change
    np.put_along_axis(keys, chosen, np.where(kept, 1e9, -1e9), axis=1)
    return np.argsort(-keys, axis=1)[:, : chosen.shape[1]].astype(np.int32)
