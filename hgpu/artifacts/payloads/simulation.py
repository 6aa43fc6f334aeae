"""Payload of a simulation: a trace replayed against a plan."""

from hgpu.artifacts.manifest import Strict
from hgpu.core.provenance import Provenance


class Spread(Strict):
    """Mean and percentiles of the requests that were served, in seconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


class ObjectiveRow(Strict):
    """`attainment` is the part of a tier's requests that kept to an objective; `percentile` was promised."""

    tier: str
    objective: str
    limit_s: float
    percentile: float
    attainment: float
    met: bool


class PoolRow(Strict):
    """What a pool did.

    `utilization` is the part of the run that an engine was computing, on average over the engines;
    `mean_batch` the sequences of a step, on average; `max_kv_share` the largest part of any engine's KV
    cache that was in use; `hit_share` the part of all prompt tokens that was found in the cache (None without
    prefix caching).
    """

    pool: str
    engines: int
    requests: int
    rejected: int
    utilization: float
    mean_batch: float
    max_kv_share: float
    preemptions: int
    hit_share: float | None


class RunRow(Strict):
    """A run at `multiplier` times the plan's rate, without one machine of the pool `lost`, if any.

    `goodput_share` is the part of all requests that kept to every objective. A rejected request was served
    by nobody and missed them all. Spreads are None where no request has the measure, and costs where no
    token was served.
    """

    multiplier: float
    rate_rps: float
    lost: str | None
    requests: int
    rejected: int
    makespan_s: float
    objectives: list[ObjectiveRow]
    goodput_share: float
    met: bool
    ttft_s: Spread | None
    tpot_s: Spread | None
    e2e_s: Spread | None
    queue_s: Spread | None
    usd_per_hour: float
    usd_per_million_output_tokens: float | None
    usd_per_million_tokens: float | None
    pools: list[PoolRow]


class SimulationPayload(Strict):
    """How a plan's fleet does at each multiple of its rate, and after losing a machine."""

    service: str
    arrivals: str
    balance: str
    seed: int
    provenance: Provenance
    runs: list[RunRow]
