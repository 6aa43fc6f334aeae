"""What a routing trace teaches an expert cache: which experts are hot, and which follow from a token.

The token table needs no training: for each token id seen, the k experts of each layer that its occurrences
went to most. Experts depend on the context too, so a table recalls a part of them; `recall` says how much.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hgpu.latency.routing import Ids, RoutingTrace

UNKNOWN = -1


@dataclass(frozen=True, slots=True, eq=False)
class ExpertHints:
    """`ranking` (L, E): each layer's experts, the most used first. `uses` (L, E): by expert id, how often.

    `table` (V, L, k): the experts that token v most often had in layer l, −1 where it wasn't seen; or None.
    """

    ranking: Ids
    uses: NDArray[np.int64]
    table: Ids | None = None

    def of_tokens(self, tokens: NDArray[np.int64], layer: int) -> Ids:
        """Return the table's experts (T, k) of tokens; −1 for tokens that it doesn't know."""
        assert self.table is not None
        known = tokens < self.table.shape[0]
        found: Ids = np.full((len(tokens), self.table.shape[2]), UNKNOWN, np.int32)
        found[known] = self.table[tokens[known], layer]
        return found


def hints_of(trace: RoutingTrace, vocab: int = 0) -> ExpertHints:
    """Return what a trace teaches; with a token table where the size of a vocabulary is given."""
    layers = range(trace.layers)
    uses = np.stack([np.bincount(trace.ids[:, n].ravel(), minlength=trace.experts) for n in layers])
    ranking = np.argsort(-uses, axis=1, kind="stable").astype(np.int32)
    return ExpertHints(ranking, uses, _table(trace, vocab) if vocab else None)


def recall(predicted: Ids, actual: Ids) -> float:
    """Return the part of the actual experts (N, k) that are among those predicted (N, k'): recall at k'.

    Tokens for which nothing is predicted count as not recalled.
    """
    found = (actual[:, :, None] == predicted[:, None, :]).any(axis=2)
    return float(found.mean())


def _table(trace: RoutingTrace, vocab: int) -> Ids:
    per_token = trace.per_token
    table = np.full((vocab, trace.layers, per_token), UNKNOWN, np.int32)
    order = np.argsort(trace.tokens, kind="stable")
    tokens, ids = trace.tokens[order], trace.ids[order]
    starts = np.flatnonzero(np.diff(tokens, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        for layer in range(trace.layers):
            counts = np.bincount(ids[start:end, layer].ravel(), minlength=trace.experts)
            table[tokens[start], layer] = np.argsort(-counts, kind="stable")[:per_token]
    return table
