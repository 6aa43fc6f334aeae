"""Why buckets can't be served, and the nearest objective that could be met."""

import itertools
from collections.abc import Mapping

from hgpu.artifacts.payloads.plan import Forbidden
from hgpu.core.errors import Infeasible
from hgpu.core.offer import Offer
from hgpu.core.operating_point import OperatingPoint, names_of
from hgpu.core.slo import Tier
from hgpu.latency.capacity import Capacity
from hgpu.solvers.host_memory import holds_experts, too_small
from hgpu.specs.service import Service

Served = Mapping[tuple[str, OperatingPoint], tuple[Capacity, ...]]  # by tier and point, a bucket each


def check_buckets(
    service: Service,
    served: Served,
    refused: Mapping[OperatingPoint, str],
) -> None:
    """Raise Infeasible for the first bucket that no rentable point can serve."""
    if not any(rentable(service, point) for point in service.points):
        if small := next((why for p in service.points if (why := _host_too_small(service, p))), ""):
            raise Infeasible(
                f"nothing offers {', '.join(dict.fromkeys(point.name for point in service.points))}",
                small,
                "widen offers.clouds, offers.regions or offers.markets, or plan with mode `mixed` too",
            )
        raise Infeasible(
            f"nothing offers {', '.join(point.name for point in service.points)}",
            "no offer of the price book has them in the chosen clouds, regions and markets",
            "widen offers.clouds, offers.regions or offers.markets, or give a price book of your own",
        )
    for tier, (number, bucket) in itertools.product(service.tiers, enumerate(service.workload.buckets)):
        rows = {
            point: capacity[number]
            for (name, point), capacity in served.items()
            if name == tier.name and rentable(service, point)
        }
        if any(capacity.rate_rps > 0 for capacity in rows.values()):
            continue
        names = names_of([*rows, *refused])
        reasons = [f"{names[point]}: {capacity.reason}" for point, capacity in rows.items()]
        reasons += [f"{names[point]}: {why}" for point, why in refused.items()]
        what = f"{tier.name} requests" if tier.name else "requests"
        raise Infeasible(
            f"no GPU type serves {what} with {bucket.name} tokens within the objectives",
            "; ".join(reasons),
            _relaxation(tier, rows),
        )


def rentable(service: Service, point: OperatingPoint) -> bool:
    """Tell whether some offer has what an operating point needs in one machine."""
    return any(rentable_as(service, offer, point) for offer in service.offers)


def rentable_as(service: Service, offer: Offer, point: OperatingPoint) -> bool:
    """Tell whether an offer has the GPUs of a point, and the host memory for experts where it needs it."""
    fits = offer.gpu == point.gpu and offer.gpu_count >= point.tp
    return fits and holds_experts(offer, point, service.model)


def _host_too_small(service: Service, point: OperatingPoint) -> str:
    return too_small(service.offers, point, service.model)


def _relaxation(tier: Tier, rows: Mapping[OperatingPoint, Capacity]) -> str:
    """Name the smallest objective that some point could meet with no other load."""
    if not rows:
        return "allow larger GPUs or a larger tensor_parallel, or a smaller dtype"
    slo, hints = tier.slo, []
    key = f"slo.tiers {tier.name}:" if tier.name else "slo"
    if slo.tpot:
        point = min(rows, key=lambda p: rows[p].lone_tpot_s)
        if rows[point].lone_tpot_s > slo.tpot.limit_s:
            hints.append(f"{key}.tpot_ms above {rows[point].lone_tpot_s * 1e3:.1f} ({point.name})")
    if slo.ttft:
        point = min(rows, key=lambda p: rows[p].lone_ttft_s)
        if rows[point].lone_ttft_s > slo.ttft.limit_s:
            hints.append(f"{key}.ttft_ms above {rows[point].lone_ttft_s * 1e3:.1f} ({point.name})")
    nearest = f"set {' and '.join(hints)}, or " if hints else ""
    return f"{nearest}allow faster GPUs, a larger tensor_parallel, or a larger engine.max_model_len"


def forbidden(service: Service, served: Served, refused: Mapping[OperatingPoint, str]) -> list[Forbidden]:
    """Return, for each operating point, how many buckets (a tier) it can't serve, and the first reason."""
    every = len(service.workload.buckets) * len(service.tiers)
    names = names_of([*refused, *(point for _, point in served)])
    rows = [Forbidden(point=names[point], buckets=every, reason=why) for point, why in refused.items()]
    for point in dict.fromkeys(point for _, point in served):
        capacity = [c for tier in service.tiers for c in served[tier.name, point]]
        reasons = [c.reason for c in capacity if c.reason]
        if not rentable(service, point):
            nothing = "no offer has it in the chosen clouds, regions and markets"
            why = _host_too_small(service, point) or nothing
            rows.append(Forbidden(point=names[point], buckets=every, reason=why))
        elif reasons:
            rows.append(Forbidden(point=names[point], buckets=len(reasons), reason=reasons[0]))
    return rows
