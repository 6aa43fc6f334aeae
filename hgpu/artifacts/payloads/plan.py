"""Payload of a plan: the answer, its baselines, and what it rests on."""

from hgpu.artifacts.manifest import Strict
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.core.slo import Slo
from hgpu.core.workload import Workload


class AllocationRow(Strict):
    """`count` machines of one offer and the engines that they run."""

    pool: str
    offer: str
    region: str
    market: str
    gpu: str
    gpus_per_machine: int
    tp: int
    mode: str
    count: int
    engines: int
    usd_per_hour: float
    utilization: float
    price_date: str
    price_source: str
    point: OperatingPoint


class Prediction(Strict):
    """What a pool will do at its share of the load, from the latency model's closed form."""

    pool: str
    rate_rps: float
    ttft_mean_s: float
    ttft_slo_s: float
    tpot_mean_s: float
    tpot_slo_s: float
    concurrency: float
    provenance: Provenance


class Baseline(Strict):
    """The cheapest fleet of a single GPU type; without a cost where there is none."""

    gpu: str
    count: int | None
    cost_usd_per_hour: float | None
    reason: str = ""


class RoutingRow(Strict):
    """Which part of a bucket's requests each pool serves; `shares` sums to 1."""

    bucket: str
    rate_rps: float
    shares: dict[str, float]


class Forbidden(Strict):
    """Buckets that an operating point can't serve, and why."""

    point: str
    buckets: int
    reason: str


class Solver(Strict):
    """How the answer was found; the seconds it took stand in the manifest's timings."""

    name: str
    status: str
    gap: float
    bound_usd_per_hour: float
    variables: int
    constraints: int


class PlanPayload(Strict):
    """The minimal-cost allocation."""

    status: str
    cost_usd_per_hour: float
    allocation: list[AllocationRow]
    baselines: list[Baseline]
    savings_vs_best_single_type: float | None
    routing: list[RoutingRow]
    predicted: list[Prediction]
    forbidden: list[Forbidden]
    solver: Solver
    provenance: Provenance
    service: str
    model: ModelSpec | None
    model_source: str
    slo: Slo | None
    workload: Workload | None
