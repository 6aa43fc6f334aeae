"""Buffers with places for experts. Imported by vLLM only."""

from collections.abc import Sequence

import numpy as np
import torch

from hgpu.latency.expert_policy import ABSENT, Load
from hgpu.runtime.vllm.expert_copies import Copies

Weights = Sequence[torch.Tensor]  # what an expert has, as (experts, …): here up and gate, and down


class Places:
    """Places for experts on a device; `held` says which expert is in each, and nothing before it is there.

    `held` is written when a copy has been carried out, and cleared before it is tried: so a copy that fails
    leaves no place that claims an expert.
    """

    def __init__(self, like: Weights, count: int) -> None:
        self.tensors = tuple(one.new_zeros((count, *one.shape[1:])) for one in like)
        self.held = np.full(count, ABSENT, np.int64)

    @property
    def count(self) -> int:
        """Places."""
        return len(self.held)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(one.nbytes for one in self.tensors)

    def fill(self, source: Weights, loads: Sequence[Load], copies: Copies) -> int:
        """Copy experts from the host's weights into their places; return the bytes."""
        return self._put(source, [(load.slot, load.expert, load.expert) for load in loads], copies)

    def take(self, other: "Places", here: Sequence[Load], copies: Copies) -> None:
        """Copy experts from another's places, `slot`, into the places of their numbers."""
        self._put(other.tensors, [(load.expert, load.slot, load.expert) for load in here], copies)

    def _put(self, source: Weights, moves: Sequence[tuple[int, int, int]], copies: Copies) -> int:
        """Carry moves out: to a place, from a row of the source, of an expert."""
        if not moves:
            return 0
        places = [to for to, _, _ in moves]
        self.held[places] = ABSENT
        pairs = [
            (mine[to], theirs[row])
            for to, row, _ in moves
            for mine, theirs in zip(self.tensors, source, strict=True)
        ]
        copies.copy(pairs)
        self.held[places] = [expert for _, _, expert in moves]
        return sum(to.nbytes for to, _ in pairs)
