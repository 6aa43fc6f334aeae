"""The highest request rate that one engine serves within the objectives, bucket by bucket."""

import functools
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
    """The highest rate for a bucket alone on an engine; 0 with the reason where it can't.

    The latencies of a lone request say how far off an objective is; `held` is false where no objective
    matters, as it has no room in the KV cache.
    """

    rate_rps: float
    lone_ttft_s: float
    lone_tpot_s: float
    reason: str = ""
    held: bool = True


def lengths_of(buckets: Sequence[Bucket]) -> Lengths:
    """Return the mean lengths of the buckets as one row; an output has at least one token."""
    return Lengths(
        np.array([[max(b.input_tokens, 1.0) for b in buckets]], float),
        np.array([[max(b.output_tokens, 1.0) for b in buckets]], float),
    )


@functools.lru_cache(maxsize=512)
def capacities(
    latency: LatencyModel, engine: EngineOptions, buckets: tuple[Bucket, ...], slo: Slo
) -> tuple[Capacity, ...]:
    """Return the capacity of one engine for each bucket, by bisection on its rate.

    Latencies grow with the rate, so the feasible rates are an interval from 0; a bucket whose
    lone request already misses an objective has none.
    """
    rule = _Rule(latency, engine, slo, buckets)
    low = np.full((len(buckets), 1), LOWEST_RPS)
    high = np.full((len(buckets), 1), HIGHEST_RPS)
    lone = rule.state(low)
    feasible = rule.within(lone)
    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        fits = rule.within(rule.state(middle))
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return tuple(
        rule.capacity(number, float(low[number, 0]) if feasible[number, 0] else 0.0, lone)
        for number in range(len(buckets))
    )


@dataclass(frozen=True, slots=True)
class _Rule:
    """What an engine must keep to, for scenarios of one bucket each (rows)."""

    latency: LatencyModel
    engine: EngineOptions
    slo: Slo
    buckets: tuple[Bucket, ...]

    @property
    def lengths(self) -> Lengths:
        row = lengths_of(self.buckets)
        return Lengths(row.input_tokens.T, row.output_tokens.T)

    def state(self, rates_rps: Floats) -> SteadyState:
        return steady_state(self.latency, self.engine, self.lengths, rates_rps, *percentiles(self.slo))

    def within(self, state: SteadyState) -> NDArray[np.bool_]:
        """Tell for each bucket whether every objective and limit holds."""
        slo, steps = self.slo, self.lengths.output_tokens - 1
        fits = np.isfinite(state.step_s)
        fits &= state.concurrency_high <= max(self.engine.max_num_seqs, 1)
        fits &= state.kv_tokens_high <= self.latency.kv_capacity_tokens
        if slo.ttft:
            fits &= state.ttft_high_s <= slo.ttft.limit_s
        if slo.tpot:
            fits &= (state.tpot_high_s <= slo.tpot.limit_s) | (steps < 1)
        if slo.e2e:
            fits &= state.ttft_high_s + steps * state.tpot_high_s <= slo.e2e.limit_s
        return fits

    def capacity(self, number: int, rate_rps: float, lone: SteadyState) -> Capacity:
        """Return the rate with the lone latencies, or 0 with the reason."""
        bucket = self.buckets[number]
        ttft_s, tpot_s = float(lone.ttft_high_s[number, 0]), float(lone.tpot_high_s[number, 0])
        reason = refusal(self.latency, self.engine, bucket, self.slo, ttft_s, tpot_s)
        if not reason and rate_rps == 0:
            reason = "a lone request exceeds the engine's max_num_seqs or KV cache"
        held = bucket.max_total_tokens <= self.latency.kv_capacity_tokens
        return Capacity(0.0 if reason else rate_rps, ttft_s, tpot_s, reason, held)


def refusal(
    latency: LatencyModel,
    engine: EngineOptions,
    bucket: Bucket,
    slo: Slo,
    lone_ttft_s: float,
    lone_tpot_s: float,
) -> str:
    """Return why an engine can't serve a bucket at any rate; empty where nothing so plain forbids it."""
    longest, kv = bucket.max_total_tokens, latency.kv_capacity_tokens
    if longest > engine.max_model_len:
        return f"requests of {longest} tokens exceed max_model_len {engine.max_model_len}"
    if longest > kv:
        return f"requests of {longest} tokens exceed the KV cache of {kv} tokens"
    steps = max(bucket.output_tokens - 1, 0.0)
    rows = (
        ("TPOT", slo.tpot if steps >= 1 else None, lone_tpot_s),
        ("TTFT", slo.ttft, lone_ttft_s),
        ("latency", slo.e2e, lone_ttft_s + steps * lone_tpot_s),
    )
    for name, objective, value_s in rows:
        if objective and value_s > objective.limit_s:
            limit_ms = objective.limit_s * 1e3
            said = f"{name} of a lone request is {value_s * 1e3:.1f} ms, above {limit_ms:g} ms"
            return said + _copying(latency, engine, bucket, prompt=name == "TTFT")
    return ""


def _copying(latency: LatencyModel, engine: EngineOptions, bucket: Bucket, prompt: bool) -> str:
    """Say what the host link takes of a lone request's steps, where experts are copied."""
    copies = latency.step.copies
    if copies is None:
        return ""
    if not prompt:
        return f": the host link takes {copies.step_s(1.0, 0.0) * 1e3:.0f} ms a token"
    budget = engine.max_num_batched_tokens
    chunks, rest = divmod(bucket.input_tokens, budget)
    link_s = chunks * copies.step_s(float(budget), 0.0) + copies.step_s(rest, 0.0)
    return f": the host link takes {link_s * 1e3:.0f} ms of its prompt"


def percentiles(slo: Slo) -> tuple[float, float]:
    """Return the percentiles at which TTFT and TPOT count; the median where neither is promised."""
    ttft, tpot = slo.ttft or slo.e2e, slo.tpot or slo.e2e
    return (ttft.percentile if ttft else 50.0), (tpot.percentile if tpot else 50.0)
