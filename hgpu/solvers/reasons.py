"""Why buckets can't be served, and the nearest objective that could be met."""

import itertools
import math
from collections.abc import Mapping, Sequence

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
        usable = {point: served[tier.name, point] for point in rows}
        raise Infeasible(
            f"no GPU type serves {what} with {bucket.name} tokens within the objectives",
            "; ".join(reasons),
            _relaxation(service, tier, usable),
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


def _relaxation(service: Service, tier: Tier, usable: Mapping[OperatingPoint, Sequence[Capacity]]) -> str:
    """Say what has to change that one point could serve every bucket, though it may take many engines."""
    if not usable:
        return "allow larger GPUs or another tensor_parallel, or a smaller dtype"
    longest = max(bucket.max_total_tokens for bucket in service.workload.buckets)
    roomy = {point: rows for point, rows in usable.items() if all(capacity.held for capacity in rows)}
    if not roomy:
        return "allow larger GPUs or a larger tensor_parallel, or a smaller dtype or engine.kv_cache_dtype"
    ways = []
    missed = {point: _missed(service, tier, rows) for point, rows in roomy.items()}
    # The point whose objectives are to be relaxed by the smallest factor, if at all.
    point = min(missed, key=lambda p: max((value / limit for value, limit in missed[p].values()), default=0))
    key = f"slo.tiers[{tier.name}]" if tier.name else "slo"
    hints = [f"{key}.{name}_ms to {_rounded_up(value)}" for name, (value, _) in missed[point].items()]
    if hints:
        ways.append(f"set {' and '.join(hints)} or more (what {point.name} keeps, without other load)")
    if longest > point.engine.max_model_len:
        ways.append(f"set engine.max_model_len to {longest} or more")
    other = [] if ways and not hints else ["allow faster GPUs or another tensor_parallel"]
    return ", or ".join([" and ".join(ways)] * bool(ways) + other)


def _missed(service: Service, tier: Tier, rows: Sequence[Capacity]) -> dict[str, tuple[float, float]]:
    """Return the objectives that lone requests of some bucket miss: the slowest, and the limit, in s."""
    slo = tier.slo
    longer = [max(bucket.output_tokens - 1, 0.0) for bucket in service.workload.buckets]
    pairs = list(zip(rows, longer, strict=True))
    slowest = {
        "tpot": (slo.tpot, max((c.lone_tpot_s for c, steps in pairs if steps >= 1), default=0.0)),
        "ttft": (slo.ttft, max(c.lone_ttft_s for c, _ in pairs)),
        "e2e": (slo.e2e, max(c.lone_ttft_s + steps * c.lone_tpot_s for c, steps in pairs)),
    }
    return {
        name: (value, objective.limit_s)
        for name, (objective, value) in slowest.items()
        if objective and value > objective.limit_s
    }


def _rounded_up(seconds: float) -> str:
    """Return milliseconds, so rounded that what takes these seconds keeps within them."""
    return f"{math.ceil(seconds * 1e4) / 10:.1f}"


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
