"""Payload of a plan: the answer, its baselines, and what it rests on."""

from hgpu.artifacts.manifest import Strict
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.phases import Phases
from hgpu.core.provenance import Provenance
from hgpu.core.slo import Slo, Tier
from hgpu.core.workload import Workload


class AllocationRow(Strict):
    """`count` machines of one offer and the engines that they run.

    Pools of one offer may share machines: each counts those that it has engines on, and pays its part.
    `safety_factor` is by how much slower than predicted its steps may be, and `phases` what the scheduler of
    an engine in mode `pd` is told.
    """

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
    safety_factor: float
    phases: Phases | None = None


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
    """The cheapest fleet of a single GPU type that holds all weights; without a cost where there is none."""

    gpu: str
    count: int | None
    cost_usd_per_hour: float | None
    reason: str = ""


class RoutingRow(Strict):
    """Which part of a bucket's requests each pool serves; `shares` sums to 1.

    The bucket holds inputs in (`input_low`, `input_high`] tokens and outputs in (`output_low`,
    `output_high`]; without bounds (Mélange files) its name is all that is known of it. `tier` is empty
    where all requests have the same objectives.
    """

    bucket: str
    tier: str
    input_low: int | None
    input_high: int | None
    output_low: int | None
    output_high: int | None
    rate_rps: float
    shares: dict[str, float]


class ShadowPrice(Strict):
    """What moving a bound by one `step` changes the cost by; None where it can't be moved (or held)."""

    bound: str
    step: str
    change_usd_per_hour: float | None
    binding: bool


class Alternative(Strict):
    """The cheapest fleet without one of the plan's GPU types; without a cost where there is none."""

    without: str
    fleet: str
    cost_usd_per_hour: float | None


class Flip(Strict):
    """The cheapest fleet at a multiple of the planned rate."""

    rate_rps: float
    fleet: str
    cost_usd_per_hour: float | None


class Explanation(Strict):
    """Why this plan: what binds, what it is worth, the runner-up, and where the choice changes."""

    prices: list[ShadowPrice]
    alternatives: list[Alternative]
    flips: list[Flip]


class ProofRound(Strict):
    """One plan that was simulated: its cost, and the least attainment of an objective beside its target."""

    cost_usd_per_hour: float
    fleet: str
    attained: float
    target: float
    headroom: dict[str, float]


class Proof(Strict):
    """The plans that were simulated, the unproved one first; `held` where the last met every objective."""

    held: bool
    trace: str
    requests: int
    rounds: list[ProofRound]


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
    """The minimal-cost allocation.

    `served` is the part of the workload's rate that it serves: 1, or what a budget buys.
    `idle_usd_per_hour` is paid for reserved machines that it doesn't use. `tiers` lists the objectives of
    parts of the requests; where all have the same, it is empty and `slo` has them.
    """

    status: str
    cost_usd_per_hour: float
    idle_usd_per_hour: float
    served: float
    confidence: float
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
    tiers: list[Tier]
    workload: Workload | None
    explanation: Explanation | None = None
    proof: Proof | None = None
