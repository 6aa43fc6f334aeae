"""Payload of a load test."""

from hgpu.artifacts.manifest import Strict


class Quantiles(Strict):
    """Mean and percentiles, in seconds."""

    mean: float
    p50: float
    p90: float
    p99: float


class BenchRow(Strict):
    """Measured beside predicted for one pool."""

    pool: str
    requests: int
    errors: int
    rate_rps: float
    achieved_rps: float
    ttft_s: Quantiles
    tpot_s: Quantiles
    predicted_ttft_mean_s: float
    predicted_tpot_mean_s: float
    harness_lag_p99_s: float


class BenchPayload(Strict):
    """A plan's prediction against what its deployment did."""

    url: str
    duration_s: float
    seed: int
    rows: list[BenchRow]
