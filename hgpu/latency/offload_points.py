"""The caches of a service's operating points in mode `offload`: slots divided, prefetch chosen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.experts import PINNING, Prefetch
from hgpu.core.operating_point import Mode, OperatingPoint
from hgpu.latency.expert_loads import Routing
from hgpu.latency.expert_slots import totals
from hgpu.latency.offload import Chosen, chosen_cache, routing_for
from hgpu.specs.service import Service


@dataclass(frozen=True, slots=True)
class Cached:
    """A service whose points have their caches, and the routing that these were chosen by, if it has any."""

    service: Service
    routing: Routing | None = None


def with_caches(service: Service, given: Routing | None, say: Callable[[str], None]) -> Cached:
    """Return a service with the cache of each point in mode `offload` made out; say why it is as it is.

    `given` is the routing of the model; without one it is taken to be uniform. Raises InputError
    where it is of another model.
    """
    if not any(point.mode is Mode.OFFLOAD for point in service.points):
        return Cached(service)
    routing = routing_for(service.model, given)
    if routing.uniform:
        pinning = sorted({str(p.experts.policy) for p in service.points if p.experts} & set(PINNING))
        needing = f"; engines with policy {' or '.join(pinning)} need one to run" if pinning else ""
        say(
            f"mode offload: no routing of {service.model.name} is given: {routing.source} is assumed; "
            f"skewed routing copies less{needing} (hgpu profile --mode offload)"
        )
    chosen: dict[OperatingPoint, OperatingPoint] = {}
    for point in service.points:
        chosen[point] = point
        if point.mode is Mode.OFFLOAD:
            made = chosen_cache(service.model, resolve_gpu(point.gpu), point, routing)
            chosen[point] = made.point
            if not routing.uniform:
                say(choice_text(made))
    return Cached(replace(service, points=tuple(chosen.values())), routing)


def choice_text(made: Chosen) -> str:
    """Say which prefetch was chosen, and what each would take."""
    experts = made.point.experts
    assert experts is not None
    slots = f"; slots {totals(experts.layer_slots)}" if experts.layer_slots else ""
    if len(made.step_s) == 1:
        return f"{made.point.full_name}: no prefetch: the trace has nothing to guess by{slots}"
    return (
        f"{made.point.full_name}: {_why(experts.prefetch)}: "
        f"{', '.join(f'{name} {seconds * 1e3:.1f}' for name, seconds in _ordered(made.step_s))} ms a decode "
        f"step, in the geometric mean over batches{slots}"
    )


def _why(prefetch: Prefetch) -> str:
    if prefetch is Prefetch.NONE:
        return "no prefetch, as it moves more bytes than compute can hide"
    return f"prefetch by {prefetch}, as its copies hide behind compute"


def _ordered(step_s: Mapping[Prefetch, float]) -> list[tuple[Prefetch, float]]:
    return sorted(step_s.items(), key=lambda row: row[1])
