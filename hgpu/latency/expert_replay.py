"""An expert cache played on a routing trace: what it would hit, and what it would copy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hgpu.core.errors import InputError
from hgpu.core.experts import PINNING, ExpertPolicy, Prefetch
from hgpu.latency.expert_hints import ExpertHints
from hgpu.latency.expert_policy import Counts, LayerCache, by_votes, pinned_of
from hgpu.latency.routing import Ids, RoutingTrace


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What the cache of each layer counted, and the experts that it loaded in each step.

    `misses` and `ahead` (steps, L): loads that the step waited for, and loads ahead of it. `here` (steps, L):
    experts that were copied within the device, into the wide buffer.
    """

    layers: tuple[Counts, ...]
    misses: Ids
    ahead: Ids
    here: Ids

    @property
    def total(self) -> Counts:
        """The counts of all layers; steps and tokens are counted once a layer."""
        counts = Counts()
        for layer in self.layers:
            counts.add(layer)
        return counts


def replay(
    trace: RoutingTrace,
    slots: int | Sequence[int],
    policy: ExpertPolicy,
    hints: ExpertHints | None = None,
    prefetch: Prefetch = Prefetch.NONE,
    wide: bool = False,
) -> Played:
    """Play a policy on a trace with so many slots in each layer, or each layer's own.

    Raises InputError where the policy or the prefetch needs hints, or predictions, that aren't given.
    """
    each = [slots] * trace.layers if isinstance(slots, int) else list(slots)
    return _played(trace, caches_of(trace, each, policy, hints, wide), guesses_of(trace, hints, prefetch))


def caches_of(
    trace: RoutingTrace,
    slots: Sequence[int],
    policy: ExpertPolicy,
    hints: ExpertHints | None,
    wide: bool = False,
) -> list[LayerCache]:
    """Return the cache of each layer of a trace, with what is pinned.

    Raises InputError where the policy has nothing to pin by.
    """
    if policy in PINNING and hints is None:
        raise InputError(f"policy '{policy}' has nothing to pin", "it needs hints of a routing trace")
    caches = []
    for layer, count in enumerate(slots):
        ranking = hints.ranking[layer].tolist() if hints else ()
        pinned = pinned_of(ranking, count, trace.per_token, policy)
        caches.append(LayerCache(trace.experts, trace.per_token, count, policy, pinned, wide))
    return caches


def replay_belady(trace: RoutingTrace, slots: int, wide: bool = False) -> Played:
    """Play the cache that knows the future and drops what is needed last: fewest loads, where steps fit."""
    caches, clocks = [], []
    for layer in range(trace.layers):
        clock = _Clock(trace, layer)
        clocks.append(clock)
        caches.append(
            LayerCache(trace.experts, trace.per_token, slots, ExpertPolicy.LFU, (), wide, clock.order)
        )
    return _played(trace, caches, None, clocks)


class _Clock:
    """Each expert's next use in a layer, as the steps go by."""

    def __init__(self, trace: RoutingTrace, layer: int) -> None:
        self.step = 0
        uses: list[list[int]] = [[] for _ in range(trace.experts)]
        for step, ids in enumerate(trace.each_step(layer)):
            for expert in np.unique(ids):
                uses[expert].append(step)
        self.uses = [np.array(one, np.int64) for one in uses]

    def order(self, expert: int) -> int:
        """Key of an expert: what is needed last is dropped first."""
        uses = self.uses[expert]
        at = int(np.searchsorted(uses, self.step, side="right"))
        return -int(uses[at]) if at < len(uses) else -(2**62)


def guesses_of(trace: RoutingTrace, hints: ExpertHints | None, prefetch: Prefetch) -> Ids | None:
    """Return what is predicted of each token, (N, L, k), or None without prefetch.

    Raises InputError where the prefetch needs what isn't given.
    """
    if prefetch is Prefetch.NONE:
        return None
    if prefetch is Prefetch.TOKEN:
        if hints is None or hints.table is None:
            raise InputError("there is no token table to prefetch by", "it is made from a routing trace")
        layers = range(trace.layers)
        return np.stack([hints.of_tokens(trace.tokens, layer) for layer in layers], axis=1)
    if trace.next_gate is None:
        raise InputError("the trace doesn't say what the next gate predicts", "it was recorded without")
    return trace.next_gate


def _played(
    trace: RoutingTrace,
    caches: Sequence[LayerCache],
    guesses: Ids | None,
    clocks: Sequence[_Clock] = (),
) -> Played:
    bounds = trace.bounds
    misses = np.zeros((len(bounds), trace.layers), np.int32)
    ahead, here = np.zeros_like(misses), np.zeros_like(misses)
    for step, layer in _each(len(bounds), trace.layers):
        start, end = bounds[step]
        cache = caches[layer]
        if clocks:
            clocks[layer].step = step
        if guesses is not None:
            ahead[step, layer] = len(cache.prefetch(by_votes(guesses[start:end, layer])))
        for group in cache.access(trace.ids[start:end, layer]):
            misses[step, layer] += len(group.loads)
            here[step, layer] += len(group.here)
    return Played(tuple(cache.counts for cache in caches), misses, ahead, here)


def _each(steps: int, layers: int) -> Iterator[tuple[int, int]]:
    return ((step, layer) for step in range(steps) for layer in range(layers))
