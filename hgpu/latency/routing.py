"""Routing traces: which experts the tokens of an engine's steps went to."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import InputError

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class RoutingTrace:
    """The routing of N tokens through L layers with k of E experts each, in the order they were computed.

    - `experts` E;
    - `ids` (N, L, k): expert ids, each token's k distinct;
    - `steps` (N): the engine step that computed a token, not falling;
    - `tokens` (N): token ids;
    - `prefill` (N): True for tokens of prompts;
    - `next_gate` (N, L, k) or None: what the router of layer l says of layer l − 1's hidden states; −1 where
      nothing is predicted (layer 0);
    - `requests` (N) or None: the sequence of each token, where that is known.
    """

    experts: int
    ids: Ids
    steps: NDArray[np.int64]
    tokens: NDArray[np.int64]
    prefill: NDArray[np.bool_]
    next_gate: Ids | None = None
    requests: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        rows = self.ids.shape[0]
        shaped = self.ids.ndim == 3 and all(
            one.shape == (rows,) for one in (self.steps, self.tokens, self.prefill)
        )
        gated = self.next_gate is None or self.next_gate.shape == self.ids.shape
        told = self.requests is None or self.requests.shape == (rows,)
        if not (shaped and gated and told and rows):
            raise InputError("a routing trace isn't whole", "its arrays are empty, or differ in shape")
        if self.ids.min() < 0 or self.ids.max() >= self.experts or (np.diff(self.steps) < 0).any():
            raise InputError(
                "a routing trace isn't one", "it names experts that there aren't, or its steps go back"
            )

    @property
    def layers(self) -> int:
        """Layers with experts."""
        return int(self.ids.shape[1])

    @property
    def per_token(self) -> int:
        """Experts of a token in a layer."""
        return int(self.ids.shape[2])

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The first token of each step, and the one past its last."""
        starts = np.flatnonzero(np.diff(self.steps, prepend=self.steps[0] - 1))
        ends = np.append(starts[1:], len(self.steps))
        return list(zip(starts.tolist(), ends.tolist(), strict=True))

    def rows(self, chosen: NDArray[np.bool_]) -> "RoutingTrace":
        """Return the trace of some tokens only (a mask), as the decodes or a half for testing."""
        return self.ordered(np.flatnonzero(chosen), self.steps[chosen])

    def ordered(self, rows: NDArray[np.int64], steps: NDArray[np.int64]) -> "RoutingTrace":
        """Return the trace of some tokens, by number, in that order and in other steps."""
        gate = None if self.next_gate is None else self.next_gate[rows]
        requests = None if self.requests is None else self.requests[rows]
        tokens, prefill = self.tokens[rows], self.prefill[rows]
        return RoutingTrace(self.experts, self.ids[rows], steps, tokens, prefill, gate, requests)

    def layer(self, number: int) -> "RoutingTrace":
        """Return the trace of one layer."""
        one = slice(number, number + 1)
        gate = None if self.next_gate is None else self.next_gate[:, one]
        return replace(self, ids=self.ids[:, one], next_gate=gate)

    def each_step(self, layer: int) -> Iterator[Ids]:
        """Give the expert ids (T, k) of each step's tokens in a layer."""
        for start, end in self.bounds:
            yield self.ids[start:end, layer]
