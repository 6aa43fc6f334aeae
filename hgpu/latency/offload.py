"""Mode `offload`: what copying experts makes of a step, and which prefetch is worth its copies.

    T_step = Σ_l E max(T_compute / L, n_ahead · t_copy) + n_exposed · t_copy + n_here · t_here
    t_copy = b_e / (tp · BW) + t_launch

with b_e the bytes of an expert, n the experts copied (from replaying the cache's own policy: of a layer where
they are ahead, of a whole step for the rest), and t_here a copy within the device into the wide buffer: one
read and one write. What is loaded ahead of a layer hides behind what the layer before it computes, and
nothing hides behind what a step costs outside its layers. For the rest the step waits. Prefetching raises the
hits *and* the bytes moved: it pays only where copies hide.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from hgpu.core.copies import ExpertCopies
from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache, Prefetch
from hgpu.core.gpu import GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.step import StepBatch
from hgpu.latency.expert_loads import Routing, StepLoads, sizes_up_to, step_loads, uniform_routing
from hgpu.latency.expert_slots import layer_slots
from hgpu.profilers.efficiency import efficiency_of
from hgpu.profilers.estimate import Roofline
from hgpu.profilers.host_link import HostLink

CONTEXT_TOKENS = 1024  # of each sequence, where prefetches are compared


def routing_for(model: ModelSpec, routing: Routing | None) -> Routing:
    """Return the routing to replay a model's caches on; uniform where none is given.

    Raises InputError where it is of another number of layers, experts or experts a token.
    """
    if routing is None:
        return _uniform(model.experts, model.experts_per_token)
    trace = routing.trace
    mine = (model.moe_layers, model.experts, model.experts_per_token)
    its = (trace.layers, trace.experts, trace.per_token)
    if not routing.uniform and mine != its:
        raise InputError(
            f"{routing.source} isn't of {model.name}",
            "it has {} layers with {} experts, {} a token; the model has {}, {} and {}".format(*its, *mine),
            "record the routing of this model, or plan without `routing`: tokens then go anywhere alike",
        )
    return routing


def copies_of(
    model: ModelSpec, gpu: GpuType, point: OperatingPoint, routing: Routing, link: HostLink | None = None
) -> ExpertCopies:
    """Return what copying experts adds to the steps of an operating point in mode `offload`."""
    cache = point.experts
    assert cache is not None
    if routing.uniform and (cache.layer_slots or cache.prefetch is not Prefetch.NONE):
        raise InputError(
            f"the cache of {point.name} was made out for a routing that isn't given",
            "its slots or its prefetch mean nothing where tokens go anywhere alike",
            "name that routing",
        )
    link = link or link_of(gpu, routing)
    loads = _loads(model, point, routing)
    scale = model.moe_layers / routing.trace.layers
    efficiency = efficiency_of(gpu, model.weight_dtype)
    here_s = 2 * model.expert_bytes / point.tp / (efficiency.bandwidth * gpu.memory_bandwidth_bytes_per_s)
    copy_s = link.copy_s(model, gpu, point.tp)
    ahead_s = efficiency.step_overhead_s + model.moe_layers * loads.ahead.T * copy_s  # none run meanwhile
    exposed_s = scale * (loads.exposed.sum(axis=1) * copy_s + loads.here.sum(axis=1) * here_s)
    return ExpertCopies(
        tuple(float(tokens) for tokens in loads.tokens),
        tuple(np.maximum.accumulate(exposed_s).tolist()),
        tuple(tuple(np.maximum.accumulate(row_s).tolist()) for row_s in ahead_s if loads.ahead.any()),
    )


def link_of(gpu: GpuType, routing: Routing) -> HostLink:
    """Return what copies cost: assumed, but for the rate where it was measured on this GPU type."""
    if routing.link is None or routing.link[0] != gpu.name:
        return HostLink()
    return HostLink(host_link=routing.link[1] / gpu.host_link_bytes_per_s)


@dataclass(frozen=True, slots=True)
class Chosen:
    """An operating point with its slots divided and its prefetch chosen, and what each prefetch would take.

    `step_s` are mean steps over the batches (`mean_step_s`), by prefetch.
    """

    point: OperatingPoint
    step_s: dict[Prefetch, float]


def chosen_cache(model: ModelSpec, gpu: GpuType, point: OperatingPoint, routing: Routing) -> Chosen:
    """Return a point in mode `offload` with slots divided by demand and the prefetch of the least steps."""
    assert point.experts is not None
    slots = layer_slots(routing, point.experts, point.engine.max_num_seqs)
    even = len(set(slots)) == 1
    cache = replace(point.experts, layer_slots=() if even else slots)
    step_s: dict[Prefetch, float] = {}
    for prefetch in routing.prefetches:
        asked = replace(point, experts=replace(cache, prefetch=prefetch))
        step_s[prefetch] = mean_step_s(model, gpu, asked, copies_of(model, gpu, asked, routing))
    best = min(step_s, key=lambda prefetch: step_s[prefetch])  # the first of equals: no prefetch
    return Chosen(replace(point, experts=replace(cache, prefetch=best)), step_s)


def mean_step_s(model: ModelSpec, gpu: GpuType, point: OperatingPoint, copies: ExpertCopies) -> float:
    """Return the geometric mean of decode steps at 1, 2, 4, … sequences up to the point's limit."""
    efficiency = efficiency_of(gpu, model.weight_dtype)
    cached = model.cached_in(point.engine.kv_cache_dtype)
    roofline = Roofline(cached, gpu, point.tp, efficiency, point.experts)
    batches = sizes_up_to(point.engine.max_num_seqs, point.engine.max_num_seqs)
    steps_s = [
        copies.step_s(seqs, roofline.step_s(StepBatch(decode_seqs=seqs, decode_context_tokens=context)))
        for seqs, context in ((seqs, seqs * CONTEXT_TOKENS) for seqs in batches)
    ]
    return float(np.exp(np.log(steps_s).mean()))


@lru_cache(maxsize=8)
def _uniform(experts: int, per_token: int) -> Routing:
    return uniform_routing(experts, per_token)


def _loads(model: ModelSpec, point: OperatingPoint, routing: Routing) -> StepLoads:
    assert point.experts is not None
    cache = point.experts
    slots: Sequence[int] = cache.slots_of(model.experts, model.experts_per_token, model.moe_layers)
    engine = point.engine
    sizes = sizes_up_to(engine.max_num_seqs, engine.max_num_batched_tokens)
    return _replayed(routing, cache, tuple(slots[: routing.trace.layers]), sizes, engine.max_num_seqs)


@lru_cache(maxsize=256)
def _replayed(
    routing: Routing, cache: ExpertCache, slots: tuple[int, ...], sizes: tuple[int, ...], max_num_seqs: int
) -> StepLoads:
    """Replays are the same on every GPU type: each is made once."""
    return step_loads(routing, cache, slots, sizes, max_num_seqs)
