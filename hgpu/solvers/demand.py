"""What services ask for and what could serve it: the allocation problem of one or more of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from hgpu.core.offer import Market, Offer
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.slo import Tier
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Bucket
from hgpu.latency.capacity import Capacity
from hgpu.latency.confidence import safety_factor, slower
from hgpu.latency.pd import point_capacities
from hgpu.solvers.limits import limits_of
from hgpu.solvers.problem import Column, Problem
from hgpu.solvers.reasons import check_buckets, rentable_as
from hgpu.specs.service import Service


@dataclass(frozen=True, slots=True)
class Candidates:
    """The operating points with a latency model, and why the others have none.

    Capacities are those of models that are slower by the safety factor of `confidence`, and divided by a
    point's `headroom` where it has one (what a simulation found to be missing).
    """

    latency: Mapping[OperatingPoint, LatencyModel]
    refused: Mapping[OperatingPoint, str] = field(default_factory=dict)
    confidence: float = 0.5
    headroom: Mapping[OperatingPoint, float] = field(default_factory=dict)

    def factor(self, point: OperatingPoint) -> float:
        """Return the safety factor of a point's step times."""
        return safety_factor(self.latency[point], self.confidence)


@dataclass(frozen=True, slots=True)
class Row:
    """A bucket of a tier of a service: one row of the problem."""

    service: str
    tier: Tier
    bucket: Bucket
    rate_rps: float

    @property
    def name(self) -> str:
        """Bucket, tier and service, as far as they are needed to tell it."""
        return " ".join(part for part in (self.service, self.tier.name, self.bucket.name) if part)

    @property
    def input_name(self) -> str:
        """The same without the output."""
        return " ".join(
            part for part in (self.service, self.tier.name, f"in≤{self.bucket.input_high}") if part
        )


@dataclass(frozen=True)
class Demand:
    """A service with its candidates; `key` tells it from the others that are planned with it.

    `known` has capacities by tier and point that were found otherwise than by the closed form.
    """

    service: Service
    candidates: Candidates
    key: str = ""
    known: Mapping[tuple[str, OperatingPoint], tuple[Capacity, ...]] = field(default_factory=dict)

    @cached_property
    def served(self) -> dict[tuple[str, OperatingPoint], tuple[Capacity, ...]]:
        """What an engine of each point can serve of each bucket, by tier."""
        service, candidates = self.service, self.candidates
        return dict(self.known) or {
            (tier.name, point): point_capacities(
                slower(latency, candidates.factor(point)), point, service.workload.buckets, tier.slo
            )
            for tier in service.tiers
            for point, latency in candidates.latency.items()
        }

    def with_headroom(self, headroom: Mapping[OperatingPoint, float]) -> "Demand":
        """Return the demand whose engines count for less."""
        return replace(self, candidates=replace(self.candidates, headroom=headroom))

    @property
    def rows(self) -> list[Row]:
        """The rows of this service: its buckets, tier by tier."""
        rate_rps = self.service.workload.rate_rps
        return [
            Row(self.key, tier, bucket, rate_rps * bucket.share * tier.share)
            for tier in self.service.tiers
            for bucket in self.service.workload.buckets
        ]

    def capacity_rps(self, offer: Offer, point: OperatingPoint) -> tuple[float, ...]:
        """Return what one engine on a machine of the offer serves of each row."""
        part = self.service.spot_availability if offer.market is Market.SPOT else 1.0
        part /= self.candidates.headroom.get(point, 1.0)
        return tuple(
            capacity.rate_rps * part
            for tier in self.service.tiers
            for capacity in self.served[tier.name, point]
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What runs now, as engines by (service, offer name, region, point), and what a change counts for."""

    running: Mapping[tuple[str, str, str, OperatingPoint], int] = field(default_factory=dict)
    usd_per_hour: float = 0.0


def problem_of(
    demands: Sequence[Demand], gap: float = 0.0, time_limit_s: float = 60.0, change: Change | None = None
) -> Problem:
    """Return the problem of services that share the limits.

    Raises Infeasible where a bucket can't be served by anything that is offered, and InputError where
    two services disagree about a limit.
    """
    for demand in demands:
        check_buckets(demand.service, demand.served, demand.candidates.refused)
    rows = [row for demand in demands for row in demand.rows]
    columns = tuple(column for number in range(len(demands)) for column in _columns(demands, number))
    change = change or Change()
    running = {
        c: change.running[place]
        for c, column in enumerate(columns)
        if (place := (column.service, column.offer.name, column.offer.region, column.point)) in change.running
    }
    return Problem(
        tuple(row.name for row in rows),
        tuple(row.rate_rps for row in rows),
        columns,
        tuple(limits_of({demand.key: demand.service for demand in demands}, columns)),
        gap,
        time_limit_s,
        tuple(demand.service.spot_share for demand in demands for _ in demand.rows),
        running,
        change.usd_per_hour,
        demands[0].service.budget_usd_per_hour if len(demands) == 1 else None,
        tuple(
            row.input_name if demand.service.routed_by_input else row.name
            for demand in demands
            for row in demand.rows
        ),
    )


def _columns(demands: Sequence[Demand], number: int) -> list[Column]:
    """The columns of one service: zero for the rows of all others."""
    before = sum(len(demand.rows) for demand in demands[:number])
    after = sum(len(demand.rows) for demand in demands[number + 1 :])
    demand = demands[number]
    columns = []
    for point in demand.candidates.latency:
        for offer in demand.service.offers:
            if rentable_as(demand.service, offer, point):
                mine = demand.capacity_rps(offer, point)
                if any(mine):
                    rates = (0.0,) * before + mine + (0.0,) * after
                    spare = demand.service.spare_machines
                    columns.append(Column(offer, point, rates, demand.key, spare))
    return columns
