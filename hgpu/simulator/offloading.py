"""Steps of an engine in mode `offload`, layer by layer, with a host tier that takes its time.

A layer computes attention and its router, then its experts are known; what isn't there is copied while the
layer waits, and then its experts are computed. One engine copies, one expert at a time: those that a layer
waits for first, those loaded ahead in the order in which they were guessed; what has begun is finished.
Guesses are made as the engine makes them: for the next layer, when a router has spoken, by the tokens or by
the next layer's gate; for the first layer by the tokens, when the step begins. A wide step copies the experts
that have slots into the wide buffer too, within the device.

The caches are the engine's own (`LayerCache`), so that what is copied is what an engine would copy.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hgpu.core.experts import ExpertCache, Prefetch
from hgpu.latency.expert_hints import ExpertHints
from hgpu.latency.expert_policy import Group, LayerCache, by_votes
from hgpu.latency.expert_replay import caches_of, guesses_of
from hgpu.latency.features import Floats
from hgpu.latency.routing import Ids, RoutingTrace

BEFORE_ROUTER = 0.5  # of a layer's compute: attention and the router; the experts are the rest
Key = tuple[int, int]  # layer, expert


@dataclass(frozen=True, slots=True)
class Speeds:
    """Seconds of a step outside its layers, of a layer, of a copy from the host, of one in the device."""

    overhead_s: float
    layer_s: float
    copy_s: float
    here_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Per step: its seconds, those in which a layer waited for copies, and the copies from the host."""

    step_s: Floats
    stall_s: Floats
    copies: Ids

    def after(self, warm: int) -> "Steps":
        """Return the steps after the first few."""
        return Steps(self.step_s[warm:], self.stall_s[warm:], self.copies[warm:])


@dataclass(slots=True)
class CopyEngine:
    """Copies one expert at a time; `arrived` says when each was there."""

    copy_s: float
    free_s: float = 0.0
    copies: int = 0
    ahead: deque[tuple[float, Key]] = field(default_factory=deque)
    arrived: dict[Key, float] = field(default_factory=dict)

    def guess(self, now_s: float, keys: Sequence[Key]) -> None:
        """Queue experts to be copied ahead."""
        self._pass_time(now_s)
        for key in keys:
            self.arrived.pop(key, None)
            self.ahead.append((now_s, key))

    def demand(self, now_s: float, missing: Sequence[Key], needed: Sequence[Key], here_s: float) -> float:
        """Copy missing experts, and needed ones that are queued, before all others; say when all are there.

        `here_s` is what copying within the device takes beside them.
        """
        self._pass_time(now_s)
        wanted = set(needed)
        queued = [key for _, key in self.ahead if key in wanted]
        self.ahead = deque(row for row in self.ahead if row[1] not in wanted)
        for key in [*queued, *missing]:
            self._copy(max(self.free_s, now_s), key)
        if here_s:
            self.free_s = max(self.free_s, now_s) + here_s
        there_s = [self.arrived[key] for key in needed if key in self.arrived]
        return max([now_s, *there_s, self.free_s if here_s else now_s])

    def _pass_time(self, now_s: float) -> None:
        """Begin the copies ahead that can begin before now."""
        while self.ahead:
            start_s = max(self.free_s, self.ahead[0][0])
            if start_s >= now_s:
                return
            self._copy(start_s, self.ahead.popleft()[1])

    def _copy(self, start_s: float, key: Key) -> None:
        self.free_s = self.arrived[key] = start_s + self.copy_s
        self.copies += 1


def offloaded_steps(
    trace: RoutingTrace, cache: ExpertCache, slots: Sequence[int], hints: ExpertHints, speeds: Speeds
) -> Steps:
    """Return the steps of a trace, one after the other, with so many slots in each layer."""
    return _Run(trace, cache, slots, hints, speeds).steps()


class _Run:
    """Caches, the engine that copies, and the time."""

    def __init__(
        self,
        trace: RoutingTrace,
        cache: ExpertCache,
        slots: Sequence[int],
        hints: ExpertHints,
        speeds: Speeds,
    ) -> None:
        self.trace, self.prefetch, self.speeds = trace, cache.prefetch, speeds
        self.caches: list[LayerCache] = caches_of(trace, slots, cache.policy, hints, cache.wide)
        self.guesses = guesses_of(trace, hints, cache.prefetch)
        self.engine = CopyEngine(speeds.copy_s)
        self.now_s = self.stall_s = 0.0

    def steps(self) -> Steps:
        rows = []
        for start, end in self.trace.bounds:
            before = (self.now_s, self.stall_s, self.engine.copies)
            self._step(start, end)
            after = (self.now_s, self.stall_s, self.engine.copies)
            rows.append([new - old for new, old in zip(after, before, strict=True)])
        step_s, stall_s, copies = np.array(rows).T
        return Steps(step_s, stall_s, copies.astype(np.int32))

    def _step(self, start: int, end: int) -> None:
        layers = range(self.trace.layers)
        if self.prefetch is Prefetch.TOKEN:
            self._guess(0, start, end)
        self.now_s += self.speeds.overhead_s
        for layer in layers:
            self.now_s += BEFORE_ROUTER * self.speeds.layer_s
            if self.prefetch is not Prefetch.NONE and layer + 1 < self.trace.layers:
                self._guess(layer + 1, start, end)
            ids = self.trace.ids[start:end, layer]
            for group in self.caches[layer].access(ids):
                self._experts(layer, group, np.unique(ids[group.tokens]).tolist(), end - start)

    def _guess(self, layer: int, start: int, end: int) -> None:
        assert self.guesses is not None
        loads = self.caches[layer].prefetch(by_votes(self.guesses[start:end, layer]))
        self.engine.guess(self.now_s, [(layer, load.expert) for load in loads])

    def _experts(self, layer: int, group: Group, needed: Sequence[int], tokens: int) -> None:
        """Wait for a group's experts, and compute them."""
        missing = [(layer, load.expert) for load in group.loads]
        here_s = len(group.here) * self.speeds.here_s
        there_s = self.engine.demand(self.now_s, missing, [(layer, expert) for expert in needed], here_s)
        self.stall_s += there_s - self.now_s
        share = len(group.tokens) / tokens
        self.now_s = there_s + share * (1 - BEFORE_ROUTER) * self.speeds.layer_s
