"""The highest request rate that one engine serves within the objectives, bucket by bucket."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hgpu.core.operating_point import EngineOptions
from hgpu.core.slo import Slo
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Bucket
from hgpu.latency.features import Floats
from hgpu.latency.queueing import Lengths, SteadyState, steady_state

BISECTIONS = 28  # of the logarithm: a rate is found within 1e-7 of itself
LOWEST_RPS = 1e-5
HIGHEST_RPS = 1e5


@dataclass(frozen=True, slots=True)
class Capacity:
    """The highest rate for a bucket alone on an engine; 0 with the reason where it can't."""

    rate_rps: float
    reason: str = ""


def lengths_of(buckets: Sequence[Bucket]) -> Lengths:
    """Return the mean lengths of the buckets as one row; an output has at least one token."""
    return Lengths(
        np.array([[max(b.input_tokens, 1.0) for b in buckets]], float),
        np.array([[max(b.output_tokens, 1.0) for b in buckets]], float),
    )


def capacities(
    latency: LatencyModel, engine: EngineOptions, buckets: Sequence[Bucket], slo: Slo
) -> list[Capacity]:
    """Return the capacity of one engine for each bucket, by bisection on its rate.

    Latencies grow with the rate, so the feasible rates are an interval from 0; a bucket whose
    lone request already misses an objective has none.
    """
    row = lengths_of(buckets)
    lengths = Lengths(row.input_tokens.T, row.output_tokens.T)  # a scenario a bucket
    low = np.full((len(buckets), 1), LOWEST_RPS)
    high = np.full((len(buckets), 1), HIGHEST_RPS)
    lone = _state(latency, engine, lengths, low, slo)
    feasible = _within(lone, latency, engine, lengths, slo)
    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        fits = _within(_state(latency, engine, lengths, middle, slo), latency, engine, lengths, slo)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return [
        _capacity(number, bucket, float(low[number, 0]), bool(feasible[number, 0]), lone, latency, engine, slo)
        for number, bucket in enumerate(buckets)
    ]


def _state(latency: LatencyModel, engine: EngineOptions, lengths: Lengths, rates: Floats, slo: Slo) -> SteadyState:
    ttft = slo.ttft or slo.e2e
    tpot = slo.tpot or slo.e2e
    return steady_state(
        latency,
        engine,
        lengths,
        rates,
        ttft.percentile if ttft else 50.0,
        tpot.percentile if tpot else 50.0,
    )


def _within(
    state: SteadyState, latency: LatencyModel, engine: EngineOptions, lengths: Lengths, slo: Slo
) -> NDArray[np.bool_]:
    """Tell for each scenario of one bucket whether every objective and limit holds."""
    ttft, tpot = state.ttft_high_s, state.tpot_high_s
    fits = np.isfinite(state.step_s)
    fits &= state.concurrency_high <= max(engine.max_num_seqs, 1)
    fits &= state.kv_tokens_high <= latency.kv_capacity_tokens
    if slo.ttft:
        fits &= ttft <= slo.ttft.limit_s
    if slo.tpot:
        fits &= (tpot <= slo.tpot.limit_s) | (lengths.output_tokens <= 1)
    if slo.e2e:
        fits &= ttft + (lengths.output_tokens - 1) * tpot <= slo.e2e.limit_s
    return np.asarray(fits)


def _capacity(
    number: int,
    bucket: Bucket,
    rate_rps: float,
    feasible: bool,
    lone: SteadyState,
    latency: LatencyModel,
    engine: EngineOptions,
    slo: Slo,
) -> Capacity:
    longest = bucket.max_total_tokens
    if longest > engine.max_model_len:
        return Capacity(0.0, f"requests of {longest} tokens exceed max_model_len {engine.max_model_len}")
    if longest > latency.kv_capacity_tokens:
        return Capacity(0.0, f"requests of {longest} tokens exceed the KV cache of {latency.kv_capacity_tokens}")
    if not feasible:
        return Capacity(0.0, _why_not(lone, number, bucket, slo))
    return Capacity(rate_rps)


def _why_not(lone: SteadyState, number: int, bucket: Bucket, slo: Slo) -> str:
    ttft_s, tpot_s = float(lone.ttft_high_s[number, 0]), float(lone.tpot_high_s[number, 0])
    e2e_s = ttft_s + (bucket.output_tokens - 1) * tpot_s
    for name, objective, value_s in (("TPOT", slo.tpot, tpot_s), ("TTFT", slo.ttft, ttft_s), ("latency", slo.e2e, e2e_s)):
        if objective and value_s > objective.limit_s:
            return f"{name} of a lone request is {value_s * 1e3:.1f} ms, above {objective.limit_s * 1e3:g} ms"
    return "a lone request exceeds the engine's limits"
