"""What engines can serve of the live histogram, without asking the closed form anew at every look.

Mean lengths change a little from look to look. They are rounded up to steps of 2 %: longer requests are
never easier to serve, and most looks find every capacity known.
"""

from dataclasses import dataclass, field, replace
from math import ceil, log

from hgpu.core.operating_point import OperatingPoint
from hgpu.core.slo import Slo
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Bucket, Workload
from hgpu.latency.capacity import Capacity, capacities
from hgpu.latency.confidence import slower
from hgpu.solvers.demand import Demand

STEP = 1.02
MOST = 50_000  # capacities kept; a few hundred are in use at a time


@dataclass(slots=True)
class KnownCapacities:
    """Capacities by bucket, each found once."""

    found: dict[tuple[str, OperatingPoint, Bucket], Capacity] = field(default_factory=dict)

    def demand_at(self, demand: Demand, workload: Workload) -> Demand:
        """Return a demand at a workload, its capacities known."""
        buckets = [_rounded(bucket) for bucket in workload.buckets]
        if len(self.found) > MOST:
            self.found.clear()
        known = {
            (tier.name, point): tuple(self._of(tier.name, point, tier.slo, model, buckets))
            for tier in demand.service.tiers
            for point, model in self._models(demand).items()
        }
        return replace(demand, service=replace(demand.service, workload=workload), known=known)

    def _models(self, demand: Demand) -> dict[OperatingPoint, LatencyModel]:
        candidates = demand.candidates
        return {p: slower(model, candidates.factor(p)) for p, model in candidates.latency.items()}

    def _of(
        self, tier: str, point: OperatingPoint, slo: Slo, model: LatencyModel, buckets: list[Bucket]
    ) -> list[Capacity]:
        new = tuple(b for b in dict.fromkeys(buckets) if (tier, point, b) not in self.found)
        if new:
            for bucket, capacity in zip(new, capacities(model, point.engine, new, slo), strict=True):
                self.found[tier, point, bucket] = capacity
        return [self.found[tier, point, bucket] for bucket in buckets]


def servable(demand: Demand) -> tuple[Demand, float]:
    """Return a demand without the buckets that no pool serves within the objectives, and their share.

    Their requests come all the same, so the others' rates grow by as much. Where none is left, the demand
    stays as it is: to solve it says why.
    """
    workload, names = demand.service.workload, [tier.name for tier in demand.service.tiers]
    kept = [
        number
        for number in range(len(workload.buckets))
        if all(
            any(row[number].rate_rps > 0 for (tier, _), row in demand.known.items() if tier == name)
            for name in names
        )
    ]
    whole = sum(workload.buckets[number].share for number in kept)
    if len(kept) in (0, len(workload.buckets)):
        return demand, 0.0 if kept else 1.0
    buckets = (workload.buckets[number] for number in kept)
    left = replace(workload, buckets=tuple(replace(b, share=b.share / whole) for b in buckets))
    known = {place: tuple(row[number] for number in kept) for place, row in demand.known.items()}
    return replace(demand, service=replace(demand.service, workload=left), known=known), 1.0 - whole


def _rounded(bucket: Bucket) -> Bucket:
    return replace(
        bucket,
        share=0.0,
        input_tokens=min(_up(bucket.input_tokens), float(bucket.input_high)),
        output_tokens=min(_up(bucket.output_tokens), float(bucket.output_high)),
    )


def _up(tokens: float) -> float:
    return float(STEP ** ceil(log(max(tokens, 1.0)) / log(STEP) - 1e-9))
