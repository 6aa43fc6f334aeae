"""The pools that a controller may scale, and the service that they serve, from a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.artifacts.payloads.rented import offer_of
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.offer import Offer
from hgpu.core.operating_point import Mode, OperatingPoint
from hgpu.core.slo import Tier
from hgpu.core.step import LatencyModel
from hgpu.solvers.demand import Candidates, Demand
from hgpu.specs.service import Service


@dataclass(frozen=True, slots=True)
class ControlledPool:
    """Engines at one operating point on machines of one offer; `most` caps them."""

    name: str
    offer: Offer
    point: OperatingPoint
    most: int | None = None

    @property
    def place(self) -> tuple[str, str, str, OperatingPoint]:
        """What a solver's column is known by."""
        return ("", self.offer.name, self.offer.region, self.point)

    @property
    def engines_per_machine(self) -> int:
        """Engines that fit on one machine."""
        return self.offer.gpu_count // self.point.tp


def controlled_pools(
    plan: PlanPayload, models: Mapping[OperatingPoint, LatencyModel], most: Mapping[str, int]
) -> tuple[ControlledPool, ...]:
    """Return a plan's pools that have a latency model: no other is ever scaled.

    Raises UnknownName for a cap on a pool that there isn't, and InputError where no pool is left.
    """
    for row in plan.allocation:
        if row.point.mode is not Mode.MIXED:
            raise InputError(
                f"pool '{row.pool}' can't be scaled by load",
                f"what its engines serve in mode '{row.mode}' takes a simulation each time to find",
                "scale it by hand, or plan in mode 'mixed' only",
            )
    for name in most:
        if name not in {row.pool for row in plan.allocation}:
            raise UnknownName("pool", name, [row.pool for row in plan.allocation])
    pools = tuple(
        ControlledPool(row.pool, _offer(plan, row), row.point, most.get(row.pool))
        for row in plan.allocation
        if row.point in models
    )
    if not pools:
        raise InputError(
            f"no pool of '{plan.service}' can be scaled",
            "none of its operating points has a latency model here",
            "name the folder that the plan was made in with --results, or plan again",
        )
    return pools


def demand_of(
    plan: PlanPayload, pools: Sequence[ControlledPool], models: Mapping[OperatingPoint, LatencyModel]
) -> Demand:
    """Return what a plan's service asks for and what its pools could serve, as the plan took it.

    Steps are as slow as the plan's confidence asks for, and engines have the headroom of its proof.
    Raises InputError for a plan without objectives (a Mélange file's).
    """
    if plan.workload is None or plan.model is None:
        raise InputError(
            f"the plan of '{plan.service}' can't be scaled by load",
            "it was made from given capacities, so it has neither objectives nor request lengths",
            "plan from a spec: hgpu plan spec.yaml",
        )
    tiers = tuple(plan.tiers) or ((Tier("", 1.0, plan.slo),) if plan.slo else ())
    points = tuple(dict.fromkeys(pool.point for pool in pools))
    offers = tuple(dict.fromkeys(pool.offer for pool in pools))
    proved = plan.proof.rounds[-1].headroom if plan.proof and plan.proof.held else {}
    names = {point: name for point in points for name in (point.name, point.full_name) if name in proved}
    headroom = {point: proved[name] for point, name in names.items()}
    service = Service(plan.model, plan.model_source, plan.workload, tiers, points, offers, {}, 1, ())
    candidates = Candidates({point: models[point] for point in points}, {}, plan.confidence, headroom)
    return Demand(service, candidates)


def _offer(plan: PlanPayload, row: AllocationRow) -> Offer:
    """The offer of a pool; pools that share its machines share their price."""
    mine = [r for r in plan.allocation if (r.offer, r.region) == (row.offer, row.region)]
    machines = ceil(sum(r.tp * r.engines for r in mine) / row.gpus_per_machine)
    return offer_of(row, sum(r.usd_per_hour for r in mine) / machines)
