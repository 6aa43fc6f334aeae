"""One layer whose experts are cached: what `LayerCache` decides, carried out. Imported by vLLM only."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hgpu.core.errors import EngineError
from hgpu.latency.expert_policy import ABSENT, Group, LayerCache, Load, by_votes
from hgpu.latency.routing import Ids
from hgpu.runtime.vllm.expert_copies import Copies
from hgpu.runtime.vllm.expert_counters import ExpertCounters
from hgpu.runtime.vllm.expert_slots import Places, Weights

Rows = NDArray[np.int64]
Compute = Callable[[Rows | None, Places, Ids], torch.Tensor]  # which tokens (None: all), where, each place


class CachedLayer:
    """The slots of a layer on the device, and its experts on the host: both from when it has been loaded."""

    def __init__(self, cache: LayerCache, counters: ExpertCounters, copies: Copies) -> None:
        self.cache = cache
        self.slots: Places
        self.weights: Callable[[], Weights]
        self.wide: Places | None = None
        self._host: Weights = ()
        self._counters, self._copies = counters, copies
        self._ahead: set[int] = set()  # copied ahead and not used yet
        self._guess: Ids | None = None

    def begin(self) -> None:
        """Take the weights where they are now, on the host, and copy what is pinned."""
        self._host = self.weights()
        self.slots.fill(self._host, self.cache.preloads, self._copies)

    def prefetch(self, guess: Ids) -> None:
        """Copy ahead what is predicted of the coming step's tokens, (T, k) with −1 for no prediction."""
        self._guess = guess
        loads = self.cache.prefetch(by_votes(guess))
        self._copied(loads)
        self._counters.prefetched += len(loads)
        self._ahead |= {load.expert for load in loads}

    def run(
        self, ids: Ids, between: Callable[[], None], compute: Compute, like: torch.Tensor
    ) -> torch.Tensor:
        """Return the experts' output for tokens (T, k), each group computed when its experts are there.

        `between` is called once, after the first group's copies have begun and before it is computed.
        """
        self._recall(ids)
        out: torch.Tensor | None = None
        for number, group in enumerate(self.cache.access(ids)):
            places = self._loaded(ids[group.tokens], group)
            mark = self._copies.mark()
            if number == 0:
                between()
            self._copies.wait(mark)
            if len(group.tokens) == len(ids):
                return compute(None, self._where(group), places)
            out = torch.empty_like(like) if out is None else out
            out[torch.from_numpy(group.tokens).to(like.device)] = compute(
                group.tokens, self._where(group), places
            )
        assert out is not None
        return out

    def _where(self, group: Group) -> Places:
        if not group.wide:
            return self.slots
        assert self.wide is not None
        return self.wide

    def _loaded(self, ids: Ids, group: Group) -> Ids:
        """Carry a group's copies out, and return the place of each token's experts.

        Raises EngineError where a place doesn't hold what it should: no token is computed from another's.
        """
        where = self._where(group)
        if group.wide:
            where.held[:] = ABSENT  # what is there is another layer's
            where.take(self.slots, group.here, self._copies)
            self._counters.copied_bytes += where.fill(self._host, group.loads, self._copies)
            places = ids
        else:
            self._copied(group.loads)
            places = self.cache.slot_of[ids]
        self._count(ids, group)
        if not ((places >= 0) & (where.held[places] == ids)).all():
            raise EngineError("an expert isn't where the cache has put it", f"of {np.unique(ids).tolist()}")
        return places

    def _copied(self, loads: Sequence[Load]) -> None:
        self._ahead -= set(self.slots.held[[load.slot for load in loads]].tolist())  # what they overwrite
        self._counters.copied_bytes += self.slots.fill(self._host, loads, self._copies)

    def _count(self, ids: Ids, group: Group) -> None:
        counters = self._counters
        needed = set(np.unique(ids).tolist())
        counters.groups += 1
        counters.wide_groups += group.wide
        counters.misses += len(group.loads)
        counters.hits += len(needed) - len(group.loads)
        self._ahead -= {load.expert for load in group.loads}
        counters.prefetch_hits += len(needed & self._ahead)
        self._ahead -= needed

    def _recall(self, ids: Ids) -> None:
        """Count how much of a step's experts had been predicted."""
        guess, self._guess = self._guess, None
        if guess is not None and len(guess) == len(ids):
            known = (guess != ABSENT).any(axis=1)
            self._counters.predictions += int(known.sum()) * ids.shape[1]
            found = (ids[:, :, None] == guess[:, None, :]).any(axis=2)
            self._counters.predicted += int(found[known].sum())
