"""How many experts a cache loads in a step, by how many tokens the step has: the real policy, replayed.

The first half of a trace is learnt from (what is hot, what follows from a token), the second is replayed in
steps of 1, 2, 4, … tokens up to the engine's budget. Steps of up to `max_num_seqs` tokens are decodes, each
of another sequence; larger ones hold prompts. The caches are warm before counting begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hgpu.artifacts.manifest import InputRef
from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache, Prefetch
from hgpu.latency.expert_hints import ExpertHints, hints_of
from hgpu.latency.expert_replay import replay
from hgpu.latency.features import Floats
from hgpu.latency.rebatch import by_sequence, halves, rebatched, uniform_trace
from hgpu.latency.routing import Ids, RoutingTrace

WARM_STEPS, COUNTED_STEPS = 64, 256
FEW_WARM, FEW_COUNTED = 4, 12  # of steps with prompts: a wide step leaves the slots as they are
UNIFORM_TOKENS = 16_384
SPREAD = 8


@dataclass(frozen=True, eq=False)
class Routing:
    """What a cache is replayed on: what was learnt, and a trace of sequences.

    Of `uniform` routing there is one layer that stands for all. `source` says where it comes from, and
    `inputs` the artifact. `link` is a GPU type and the bytes/s at which an expert was copied to it from
    pinned memory, where that was measured with the routing.
    """

    hints: ExpertHints
    trace: RoutingTrace
    source: str
    uniform: bool = False
    inputs: tuple[InputRef, ...] = ()
    link: tuple[str, float] | None = None

    @cached_property
    def decodes(self) -> RoutingTrace:
        """The decodes, or all where there are none."""
        return self._kind(prefill=False)

    @cached_property
    def prompts(self) -> RoutingTrace:
        """The prompts, or all where there are none."""
        return self._kind(prefill=True)

    @cached_property
    def prefetches(self) -> tuple[Prefetch, ...]:
        """What can be guessed from it: a gate or a token table only where it has them."""
        if self.uniform:
            return (Prefetch.NONE,)
        gate = () if self.trace.next_gate is None else (Prefetch.NEXT_GATE,)
        table = () if self.hints.table is None else (Prefetch.TOKEN,)
        return (Prefetch.NONE, *table, *gate)

    def _kind(self, prefill: bool) -> RoutingTrace:
        chosen = self.trace.prefill == prefill
        return by_sequence(self.trace.rows(chosen) if chosen.any() else self.trace)

    def steps(self, tokens: int, max_num_seqs: int) -> tuple[RoutingTrace, int]:
        """Return steps of so many tokens, and how many of them only warm the caches."""
        if tokens <= max_num_seqs:
            steps = rebatched(self.decodes, tokens, WARM_STEPS + COUNTED_STEPS, decodes=True)
            most_warm = WARM_STEPS
        else:
            steps = rebatched(self.prompts, tokens, FEW_WARM + FEW_COUNTED, decodes=False)
            most_warm = FEW_WARM
        return steps, min(most_warm, len(steps.bounds) // 4)


def routing_of(trace: RoutingTrace, source: str) -> Routing:
    """Return the routing of a recorded trace: a half to learn from, a half to play."""
    learnt, played = halves(trace)
    told = bool(np.ptp(trace.tokens))  # a made trace may have no token ids
    return Routing(hints_of(learnt, int(trace.tokens.max()) + 1 if told else 0), played, source)


def uniform_routing(experts: int, per_token: int) -> Routing:
    """Return routing that knows no favourites: what skewed routing would load is less than with it."""
    trace = uniform_trace(experts, per_token, UNIFORM_TOKENS)
    return Routing(hints_of(trace), trace, "routing to any expert alike", uniform=True)


@dataclass(frozen=True, slots=True, eq=False)
class StepLoads:
    """Experts copied in a step of so many `tokens`, (sizes, L) and for `ahead` (sizes, SPREAD).

    `exposed` are loaded while a layer waits, and `here` are copied within the device, into the wide buffer:
    means over steps. `ahead` are loaded before their layer is reached: means of parts of all layers of all
    steps, those with the fewest first.
    """

    tokens: tuple[int, ...]
    exposed: Floats
    here: Floats
    ahead: Floats


def step_loads(
    routing: Routing, cache: ExpertCache, slots: Sequence[int], sizes: Sequence[int], max_num_seqs: int
) -> StepLoads:
    """Return what a cache with so many slots in each layer of the routing loads, by tokens in a step.

    Steps of prompts that the trace has too few tokens for are taken to load all experts into the wide buffer,
    which is the most. Raises InputError where it has too few for the decodes, or there is no wide buffer.
    """
    layers = routing.trace.layers
    most = np.full(layers, float(routing.trace.experts))
    rows: list[tuple[Floats, Floats, Floats]] = []
    for tokens in sizes:
        try:
            steps, warm = routing.steps(tokens, max_num_seqs)
        except InputError:
            if not cache.wide or tokens <= max_num_seqs:
                raise
            rows.append((most, np.zeros(layers), np.zeros(SPREAD)))
            continue
        played = replay(steps, slots, cache.policy, routing.hints, cache.prefetch, cache.wide)
        exposed, here = (counted[warm:].mean(axis=0) for counted in (played.misses, played.here))
        rows.append((exposed, here, _spread(played.ahead[warm:])))
    exposed, here, ahead = (np.array(column) for column in zip(*rows, strict=True))
    return StepLoads(tuple(sizes), exposed, here, ahead)


def _spread(ahead: Ids) -> Floats:
    """Return the means of SPREAD equal parts of what layers load ahead, in rising order."""
    spread: Floats = np.sort(ahead, axis=None).repeat(SPREAD).reshape(SPREAD, -1).mean(axis=1)
    return spread


def sizes_up_to(max_num_seqs: int, budget: int) -> tuple[int, ...]:
    """Return the step sizes to replay: powers of two, the batch limit and the token budget."""
    powers = {2**n for n in range(budget.bit_length())}
    return tuple(sorted({size for size in powers | {max_num_seqs, budget} if size <= budget}))
