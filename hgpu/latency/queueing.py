"""How an engine behaves in steady state: closed forms on top of a step model.

One engine runs steps back to back. In a step of mean length t, a = λ·c·t prompt chunks arrive
(Poisson), so a step carries prefill with probability q = 1 − e^(−a), and then a/q chunks of it.
With B sequences decoding (Little: B = λ·(O − 1)·t, and the request looked at itself),

    t = (1 − q)·f(B) + q·f(B, a/q chunks)

whose smallest fixed point is the mean step. A request meets more than the mean step has: prompts
that come while it waits and prefills stand behind it, and are prefilled between its own tokens. So it meets
a Poisson number N of prompts, of mean λ·(w + (O − 1)·t) with w its time to the first token, each of
which lengthens its decoding by x seconds, and by x/(1 − ρ) with those that come in the
meantime (ρ = λ·x, as in a busy period). The spread of TPOT has three sources, added in quadrature:
B is Poisson, N is, and w varies.

Prompts wait as in an M/G/1 queue that serves each for its part of full steps (Pollaczek and
Khinchine; exponential tail).

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
    seqs, context = _decoding(load, lengths, step_s)
    z = NormalDist().inv_cdf(tpot_percentile / 100)

    room = np.maximum(engine.max_num_batched_tokens - seqs, 1.0)
    full_s = _step(latency, seqs, context, room / load.chunk_tokens, load)
    wait = _wait(latency, load, lengths, step_s, full_s, room, ttft_percentile)
    tpot_mean, tpot_high = _tpot(latency, load, lengths, step_s, wait, z)
    kv_each = lengths.input_tokens + lengths.output_tokens / 2
    held = (load.rates * (lengths.output_tokens - 1) * step_s * kv_each).sum(1, keepdims=True)
    held += _weighted(load.rates, kv_each)
    held_var = (load.rates * lengths.output_tokens * step_s * kv_each**2).sum(1, keepdims=True)
    lost = ~stable | (wait.use >= 1)
    return SteadyState(
        step_s=np.where(lost, np.inf, step_s),
        concurrency=seqs,
        concurrency_high=seqs + max(z, 0.0) * np.sqrt(seqs - 1),
        kv_tokens_high=held + max(z, 0.0) * np.sqrt(held_var),
        budget_use=wait.use,
        ttft_mean_s=np.where(lost, np.inf, latency.request_s + wait.mean_s),
        ttft_high_s=np.where(lost, np.inf, latency.request_s + wait.high_s),
        tpot_mean_s=np.where(lost, np.inf, tpot_mean),
        tpot_high_s=np.where(lost, np.inf, np.minimum(tpot_high, np.maximum(full_s, step_s))),
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


@dataclass(frozen=True, slots=True)
class _Wait:
    """From the scheduler to the first token, in seconds; `var_s2` is the variance of the part that
    depends on others, and `use` the part of the time that prompts would take in full steps."""

    mean_s: Floats
    high_s: Floats
    var_s2: Floats
    use: Floats


def _wait(
    latency: LatencyModel,
    load: _Load,
    lengths: Lengths,
    step_s: Floats,
    full_s: Floats,
    room: Floats,
    percentile: float,
) -> _Wait:
    """Wait of a prompt behind others, each served for its part of full steps of `full_s` seconds.

    A step is under way at an arrival only where somebody is there: never for a lone request.
    """
    served_s = lengths.input_tokens / room * full_s
    use = (load.rates * served_s).sum(1, keepdims=True)
    waited_s = (load.rates * served_s**2).sum(1, keepdims=True) / (2 * np.maximum(1 - use, 1e-9))
    own_s = _own_prefill(latency, load, lengths, step_s)

    miss = 1 - percentile / 100
    alive_s = own_s + (lengths.output_tokens - 1) * step_s
    busy = -np.expm1(-(load.rates * alive_s).sum(1, keepdims=True))
    waiting = np.clip(use, 1e-12, 1.0)  # the share of prompts that wait for others
    tail_s = waited_s / waiting * np.log(np.maximum(waiting, miss) / miss)
    under_way_s = step_s * np.maximum(1 - miss / np.maximum(busy, miss), 0.0)
    mean = busy * step_s / 2 + waited_s + own_s
    high = under_way_s + tail_s + own_s
    return _Wait(
        mean_s=mean,
        high_s=np.asarray(np.maximum(high, mean) if percentile >= 50 else high),
        var_s2=waited_s**2 * (2 / waiting - 1),
        use=use,
    )


def _own_prefill(latency: LatencyModel, load: _Load, lengths: Lengths, step_s: Floats) -> Floats:
    """Seconds of the steps that compute a prompt, beside the others that decode."""
    seqs, context = _decoding(load, lengths, step_s)
    tokens, chunks = lengths.input_tokens, load.chunks
    return chunks * _seconds(
        latency,
        prefill_tokens=tokens / chunks,
        prefill_seqs=1.0,
        prefill_pairs=tokens * (tokens + 1) / 2 / chunks,
        prefill_context_tokens=tokens * (chunks - 1) / 2 / chunks,
        decode_seqs=seqs - 1,
        decode_context_tokens=context * (seqs - 1) / seqs,
    )


def _tpot(
    latency: LatencyModel, load: _Load, lengths: Lengths, step_s: Floats, wait: _Wait, z: float
) -> tuple[Floats, Floats]:
    """Mean and percentile TPOT a bucket; z is the percentile's normal quantile."""
    seqs, context = _decoding(load, lengths, step_s)
    decode_s, mixed_s, share = _step_times(latency, load, lengths, step_s)
    arrivals = np.maximum(load.chunk_rate * step_s, 1e-12)
    chunk_s = (mixed_s - decode_s) * share / arrivals  # what a chunk adds to a step
    steps = np.maximum(lengths.output_tokens - 1, 1.0)

    rate = np.maximum(load.rates.sum(1, keepdims=True), 1e-300)
    growth = 1 / np.maximum(1 - load.chunk_rate * chunk_s, 1e-9)
    prompt_s = chunk_s * load.chunk_rate / rate * growth / steps  # what a prompt adds to TPOT
    met = rate * (wait.mean_s + steps * step_s)
    mean = step_s + rate * wait.mean_s * prompt_s
    spread = np.hypot(_poisson_quantile(met, z) - met, z * rate * np.sqrt(wait.var_s2)) * prompt_s
    batch = z * _slope(latency, seqs, context) * np.sqrt(seqs - 1)
    return mean, mean + np.sign(z) * np.hypot(batch, spread)


def _poisson_quantile(mean: Floats, z: float) -> Floats:
    """Return a Poisson variable's quantile, made continuous: its Cornish-Fisher expansion with the
    skewness (Abramowitz and Stegun, 26.2.49), and 0 where 0 alone is likely enough."""
    expansion = np.maximum(mean + z * np.sqrt(mean) + (z * z - 1) / 6, 0.0)
    return np.where(mean > -np.log(NormalDist().cdf(z)), expansion, 0.0)
