"""How an engine behaves in steady state: closed forms on top of a step model.

One engine runs steps back to back. In a step of mean length t, a = λ·c·t prompt chunks arrive
(Poisson), so a step carries prefill with probability q = 1 − e^(−a), and then a/q chunks of it.
With B sequences decoding (Little: B = λ·(O − 1)·t, and the request looked at itself),

    t = (1 − q)·f(B) + q·f(B, a/q chunks)

whose smallest fixed point is the mean TPOT. Its spread over requests has two sources: B is
Poisson, and a request of O tokens meets a random number of prefill steps; both are normal
approximations, added in quadrature. Prompts wait as in an M/G/1 queue whose server gives the
token budget once a step (Pollaczek and Khinchine; exponential tail).

All arrays have a row per scenario and a column per bucket. These are approximations, meant
for packing; a simulation proves a plan.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgpu.core.operating_point import EngineOptions
from hgpu.core.step import LatencyModel, StepBatch
from hgpu.latency.features import Floats

Booleans = NDArray[np.bool_]

ITERATIONS = 100
TOLERANCE = 1e-4
LONGEST_STEP_S = 100.0  # a mean step that passes this never settles


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean input and output tokens, a column a bucket; one row, or a row a scenario."""

    input_tokens: Floats
    output_tokens: Floats


@dataclass(frozen=True, slots=True)
class SteadyState:
    """What each scenario settles at. Per scenario (rows, 1): `step_s`, `concurrency`,
    `kv_tokens`, `budget_use`. Per scenario and bucket: mean and percentile latencies in seconds.
    Unstable scenarios have infinite latencies.
    """

    step_s: Floats
    concurrency: Floats
    concurrency_high: Floats
    kv_tokens_high: Floats
    budget_use: Floats
    ttft_mean_s: Floats
    ttft_high_s: Floats
    tpot_mean_s: Floats
    tpot_high_s: Floats


@dataclass(frozen=True, slots=True)
class _Load:
    """Arrivals of the scenarios: requests, chunks, and the mean chunk."""

    rates: Floats
    chunks: Floats
    chunk_rate: Floats
    chunk_tokens: Floats
    chunk_pairs: Floats
    chunk_context: Floats


def steady_state(
    latency: LatencyModel,
    engine: EngineOptions,
    lengths: Lengths,
    rates_rps: Floats,
    ttft_percentile: float = 99.0,
    tpot_percentile: float = 99.0,
) -> SteadyState:
    """Return where each scenario of `rates_rps` (scenarios × buckets, requests/s) settles."""
    load = _load(engine, lengths, rates_rps)
    step_s, stable = _settle(latency, load, lengths)
    decode_s, mixed_s, mixed_share = _step_times(latency, load, lengths, step_s)
    seqs, context = _decoding(load, lengths, step_s)
    z = NormalDist().inv_cdf(tpot_percentile / 100)

    per_seq_s = _slope(latency, seqs, context)
    steps = np.maximum(lengths.output_tokens - 1, 1.0)
    met = mixed_share * (1 - mixed_share) * load.chunks * (mixed_s - decode_s) ** 2 / steps
    tpot_high = step_s + z * np.sqrt(per_seq_s**2 * seqs + met)

    room = np.maximum(engine.max_num_batched_tokens - seqs, 1.0)
    ttft_mean, ttft_high, use = _ttft(latency, load, lengths, step_s, room, ttft_percentile)
    kv_each = lengths.input_tokens + lengths.output_tokens / 2
    held = (load.rates * (lengths.output_tokens - 1) * step_s * kv_each).sum(1, keepdims=True)
    held_var = (load.rates * lengths.output_tokens * step_s * kv_each**2).sum(1, keepdims=True)
    lost = ~stable | (use >= 1)
    return SteadyState(
        step_s=np.where(lost, np.inf, step_s),
        concurrency=seqs,
        concurrency_high=seqs + max(z, 0.0) * np.sqrt(seqs),
        kv_tokens_high=held + max(z, 0.0) * np.sqrt(held_var),
        budget_use=use,
        ttft_mean_s=np.where(lost, np.inf, ttft_mean),
        ttft_high_s=np.where(lost, np.inf, ttft_high),
        tpot_mean_s=np.where(lost, np.inf, step_s + 0.0 * lengths.output_tokens),
        tpot_high_s=np.where(lost, np.inf, tpot_high),
    )


def _load(engine: EngineOptions, lengths: Lengths, rates: Floats) -> _Load:
    tokens = lengths.input_tokens
    chunks = np.ceil(tokens / engine.max_num_batched_tokens)
    weight = rates * chunks
    total = np.maximum(weight.sum(1, keepdims=True), 1e-300)

    def mean(values: Floats) -> Floats:
        return np.asarray((weight * values).sum(1, keepdims=True) / total)

    return _Load(
        rates=rates,
        chunks=chunks,
        chunk_rate=weight.sum(1, keepdims=True),
        chunk_tokens=mean(tokens / chunks),
        chunk_pairs=mean(tokens * (tokens + 1) / 2 / chunks),
        chunk_context=mean(tokens * (chunks - 1) / 2 / chunks),
    )


def _decoding(load: _Load, lengths: Lengths, step_s: Floats) -> tuple[Floats, Floats]:
    """Sequences that decode, the one looked at among them, and their KV tokens."""
    each = load.rates * (lengths.output_tokens - 1) * step_s
    others = each.sum(1, keepdims=True)
    middle = lengths.input_tokens + lengths.output_tokens / 2
    own = _weighted(load.rates, middle)
    return 1.0 + others, own + (each * middle).sum(1, keepdims=True)


def _weighted(rates: Floats, values: Floats) -> Floats:
    total = np.maximum(rates.sum(1, keepdims=True), 1e-300)
    return np.asarray((rates * values).sum(1, keepdims=True) / total)


def _seconds(latency: LatencyModel, **features: Any) -> Floats:
    """Seconds of the steps whose StepBatch fields are given as arrays."""
    return np.asarray(latency.step.step_s(StepBatch(**features)))


def _step(latency: LatencyModel, seqs: Floats, context: Floats, chunks: Any, load: _Load) -> Floats:
    return _seconds(
        latency,
        prefill_tokens=chunks * load.chunk_tokens,
        prefill_seqs=chunks,
        prefill_pairs=chunks * load.chunk_pairs,
        prefill_context_tokens=chunks * load.chunk_context,
        decode_seqs=seqs,
        decode_context_tokens=context,
    )


def _step_times(
    latency: LatencyModel, load: _Load, lengths: Lengths, step_s: Floats
) -> tuple[Floats, Floats, Floats]:
    """Seconds of a decode step and of a mixed one, and the share of mixed steps."""
    seqs, context = _decoding(load, lengths, step_s)
    arrivals = np.maximum(load.chunk_rate * step_s, 1e-12)
    share = -np.expm1(-arrivals)
    decode_s = _step(latency, seqs, context, 0.0, load)
    mixed_s = _step(latency, seqs, context, arrivals / share, load)
    return decode_s, mixed_s, share


def _settle(latency: LatencyModel, load: _Load, lengths: Lengths) -> tuple[Floats, Booleans]:
    """Iterate to the smallest fixed point of the mean step from below; tell where it exists."""
    step_s = np.zeros_like(load.chunk_rate)
    settled = np.zeros(step_s.shape, bool)
    for _ in range(ITERATIONS):
        decode_s, mixed_s, share = _step_times(latency, load, lengths, step_s)
        new = np.minimum((1 - share) * decode_s + share * mixed_s, LONGEST_STEP_S)
        settled = np.abs(new - step_s) < TOLERANCE * new
        step_s = new
        if settled.all():
            break
    return step_s, settled & (step_s < LONGEST_STEP_S)


def _slope(latency: LatencyModel, seqs: Floats, context: Floats) -> Floats:
    """Seconds that one more decoding sequence adds to a step."""
    now = _seconds(latency, decode_seqs=seqs, decode_context_tokens=context)
    more = _seconds(latency, decode_seqs=seqs + 1, decode_context_tokens=context * (seqs + 1) / seqs)
    return more - now


def _ttft(
    latency: LatencyModel, load: _Load, lengths: Lengths, step_s: Floats, room: Floats, percentile: float
) -> tuple[Floats, Floats, Floats]:
    """Mean and percentile TTFT a bucket, and the part of the token budget in use."""
    seqs, context = _decoding(load, lengths, step_s)
    slots = lengths.input_tokens / room  # budgets (steps) that a prompt needs
    use = (load.rates * slots).sum(1, keepdims=True) * step_s
    spare = np.maximum(1 - use, 1e-9)
    waited = (load.rates * slots**2).sum(1, keepdims=True) * step_s / (2 * spare)

    tokens, chunks = lengths.input_tokens, load.chunks
    own_s = _seconds(
        latency,
        prefill_tokens=tokens / chunks,
        prefill_seqs=1.0,
        prefill_pairs=tokens * (tokens + 1) / 2 / chunks,
        prefill_context_tokens=tokens * (chunks - 1) / 2 / chunks,
        decode_seqs=seqs,
        decode_context_tokens=context,
    )
    _, mixed_s, share = _step_times(latency, load, lengths, step_s)
    mean = latency.request_s + step_s / 2 + waited * mixed_s + chunks * own_s

    miss = 1 - percentile / 100
    tail = np.where(use > miss, waited / np.maximum(use, 1e-12) * np.log(np.maximum(use, miss) / miss), 0.0)
    running = np.where(share > miss, mixed_s, step_s)
    high = latency.request_s + running * percentile / 100 + tail * mixed_s + chunks * own_s
    return mean, np.asarray(np.maximum(high, mean) if percentile >= 50 else high), use
