"""Why buckets can't be served, and the nearest objective that could be met."""

from collections.abc import Mapping

from hgpu.artifacts.payloads.plan import Forbidden
from hgpu.core.errors import Infeasible
from hgpu.core.operating_point import OperatingPoint
from hgpu.latency.capacity import Capacity
from hgpu.specs.service import Service


def check_buckets(
    service: Service,
    served: Mapping[OperatingPoint, tuple[Capacity, ...]],
    refused: Mapping[OperatingPoint, str],
) -> None:
    """Raise Infeasible for the first bucket that no rentable point can serve."""
    if not any(rentable(service, point) for point in service.points):
        raise Infeasible(
            f"nothing offers {', '.join(point.name for point in service.points)}",
            "no offer of the price book has them in the chosen clouds, regions and markets",
            "widen offers.clouds, offers.regions or offers.markets, or give a price book of your own",
        )
    for number, bucket in enumerate(service.workload.buckets):
        rows = {point: capacity[number] for point, capacity in served.items() if rentable(service, point)}
        if any(capacity.rate_rps > 0 for capacity in rows.values()):
            continue
        reasons = [f"{point.name}: {capacity.reason}" for point, capacity in rows.items()]
        reasons += [f"{point.name}: {why}" for point, why in refused.items()]
        raise Infeasible(
            f"no GPU type serves requests with {bucket.name} tokens within the objectives",
            "; ".join(reasons),
            _relaxation(service, rows),
        )


def rentable(service: Service, point: OperatingPoint) -> bool:
    """Tell whether some offer has the GPUs of an operating point in one machine."""
    return any(offer.gpu == point.gpu and offer.gpu_count >= point.tp for offer in service.offers)


def _relaxation(service: Service, rows: Mapping[OperatingPoint, Capacity]) -> str:
    """Name the smallest objective that some point could meet with no other load."""
    if not rows:
        return "allow larger GPUs or a larger tensor_parallel, or a smaller dtype"
    slo, hints = service.slo, []
    if slo.tpot:
        point = min(rows, key=lambda p: rows[p].lone_tpot_s)
        if rows[point].lone_tpot_s > slo.tpot.limit_s:
            hints.append(f"slo.tpot_ms above {rows[point].lone_tpot_s * 1e3:.1f} ({point.name})")
    if slo.ttft:
        point = min(rows, key=lambda p: rows[p].lone_ttft_s)
        if rows[point].lone_ttft_s > slo.ttft.limit_s:
            hints.append(f"slo.ttft_ms above {rows[point].lone_ttft_s * 1e3:.1f} ({point.name})")
    nearest = f"set {' and '.join(hints)}, or " if hints else ""
    return f"{nearest}allow faster GPUs, a larger tensor_parallel, or a larger engine.max_model_len"


def forbidden(
    service: Service,
    served: Mapping[OperatingPoint, tuple[Capacity, ...]],
    refused: Mapping[OperatingPoint, str],
) -> list[Forbidden]:
    """Return, for each operating point, how many buckets it can't serve and the first reason."""
    every = len(service.workload.buckets)
    rows = [Forbidden(point=point.name, buckets=every, reason=why) for point, why in refused.items()]
    for point, row in served.items():
        reasons = [capacity.reason for capacity in row if capacity.reason]
        if not rentable(service, point):
            why = "no offer has it in the chosen clouds, regions and markets"
            rows.append(Forbidden(point=point.name, buckets=every, reason=why))
        elif reasons:
            rows.append(Forbidden(point=point.name, buckets=len(reasons), reason=reasons[0]))
    return rows
