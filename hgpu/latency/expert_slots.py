"""Slots divided over the layers of a model by what each layer would load without them.

With m_l(c) the loads a step of layer l with c slots, the division minimises Σ_l m_l(c_l) for Σ_l c_l = C in
all, c_l between the experts of a token and all of them. It is solved exactly, by dynamic programming over
the layers: what the first l layers load with s slots is the least, over c, of what l − 1 of them load with
s − c and what layer l loads with c. Curves need not be convex.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache, Prefetch
from hgpu.latency.expert_loads import Routing, step_loads
from hgpu.latency.features import Floats

MEASURED = 9  # places of a curve that are replayed; it is linear between them


def divided(curves: Floats, least: int, total: int) -> tuple[int, ...]:
    """Return each layer's slots, `total` in all; `curves` (L, n) are loads with least, least + 1, … slots.

    Raises InputError where no division makes up the total.
    """
    layers, choices = curves.shape
    spare = total - layers * least
    if not 0 <= spare <= layers * (choices - 1):
        raise InputError(
            f"{total} slots can't be divided over {layers} layers",
            f"each takes {least} to {least + choices - 1}",
            "cache another part of the experts",
        )
    best = np.full(spare + 1, np.inf)
    best[0] = 0.0
    picks = np.zeros((layers, spare + 1), np.int64)
    for layer in range(layers):
        options = np.full((choices, spare + 1), np.inf)
        for more in range(min(choices, spare + 1)):
            options[more, more:] = best[: spare + 1 - more] + curves[layer, more]
        picks[layer] = options.argmin(axis=0)
        best = options.min(axis=0)
    slots, left = [], spare
    for layer in reversed(range(layers)):
        more = int(picks[layer, left])
        slots.append(least + more)
        left -= more
    return tuple(reversed(slots))


def slot_curves(routing: Routing, cache: ExpertCache, batch: int) -> tuple[int, Floats]:
    """Return k, and what each layer loads in a step of `batch` decodes with k to E slots, (L, E − k + 1).

    Without prefetch, which only moves loads.
    """
    trace = routing.trace
    cache = replace(cache, prefetch=Prefetch.NONE)
    least, most = trace.per_token, trace.experts
    places = np.unique(np.linspace(least, most, min(MEASURED, most - least + 1)).round().astype(int))
    measured = []
    for slots in places.tolist():
        loads = step_loads(routing, cache, [slots] * trace.layers, [batch], batch)
        measured.append(loads.exposed[0])
    every = np.arange(least, most + 1)
    curves = [np.interp(every, places, column) for column in np.array(measured).T]
    return least, np.array(curves)


def layer_slots(routing: Routing, cache: ExpertCache, max_num_seqs: int) -> tuple[int, ...]:
    """Return the slots of each layer of a routing trace, as many in all as the cache's fraction gives.

    The batch that they are divided for lies midway, by ratio, between one sequence and `max_num_seqs`.
    """
    trace = routing.trace
    each = cache.slots(trace.experts, trace.per_token)
    if routing.uniform or trace.layers == 1:
        return (each,) * trace.layers
    least, curves = slot_curves(routing, cache, batch_between(max_num_seqs))
    return divided(curves, least, each * trace.layers)


def batch_between(max_num_seqs: int) -> int:
    """Return the batch midway, by ratio, between one sequence and the limit."""
    return round(math.sqrt(max_num_seqs))


def totals(slots: Sequence[int]) -> str:
    """Return slots in words: `32 a layer`, or `20 to 44 a layer`."""
    least, most = min(slots), max(slots)
    return f"{most} a layer" if least == most else f"{least} to {most} a layer"
