"""A histogram or a distribution as a trace with Poisson arrivals."""

import numpy as np

from hgpu.core.errors import InputError
from hgpu.core.workload import Workload
from hgpu.workloads.histogram import check_rate
from hgpu.workloads.lengths import LengthDistribution, find_lengths
from hgpu.workloads.trace import Floats, Ints, Trace, ordered_trace


def poisson_trace(
    source: Workload | LengthDistribution | str,
    rate_rps: float,
    *,
    requests: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
) -> Trace:
    """Return a trace of that many requests, or of that many seconds, at a mean rate in requests/s.

    The first request comes at 0 s; after it, gaps are exponential with mean 1/rate. Lengths come
    from the distribution (or the one of that name), or from the workload's buckets: uniform about
    each bucket's mean, as wide as its edges allow, so that the means hold and requests don't march
    in step. Raises InputError unless exactly one of requests and duration_s is given.
    """
    check_rate(rate_rps)
    if seed < 0:
        raise InputError(f"bad seed {seed}", "it is negative", "give a whole number from 0 up")
    arrivals_s = _arrivals(rate_rps, requests, duration_s, np.random.default_rng([seed, 0]))
    if isinstance(source, str):
        source = find_lengths(source)
    if isinstance(source, Workload):
        lengths = _from_buckets(source, len(arrivals_s), np.random.default_rng([seed, 1]))
    else:
        lengths = source.sample(len(arrivals_s), seed)
    return ordered_trace(
        f"{source.name}@{rate_rps:g}rps",
        arrivals_s,
        *lengths,
        source=f"Poisson arrivals at {rate_rps:g} requests/s (seed {seed}); lengths: {source.source}",
    )


def _arrivals(
    rate_rps: float, requests: int | None, duration_s: float | None, rng: np.random.Generator
) -> Floats:
    """Return rising arrival times in seconds, the first at 0."""
    if requests is not None and duration_s is None and requests >= 1:
        return np.concatenate([[0.0], np.cumsum(rng.exponential(1 / rate_rps, size=requests - 1))])
    if duration_s is not None and requests is None and 0 < duration_s < float("inf"):
        # Given how many arrivals a Poisson process has in an interval, they are uniform in it.
        count = rng.poisson(rate_rps * duration_s)
        return np.concatenate([[0.0], np.sort(rng.uniform(0, duration_s, size=count))])
    raise InputError(
        "can't tell how long the trace should be",
        f"requests={requests} and duration_s={duration_s}",
        "give either requests (1 or more) or duration_s (positive)",
    )


def _from_buckets(workload: Workload, n: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return n input and output lengths from buckets drawn by their shares."""
    shares = np.array([bucket.share for bucket in workload.buckets])
    which = rng.choice(len(shares), size=n, p=shares / shares.sum())
    inputs = [(b.input_low, b.input_tokens, b.input_high) for b in workload.buckets]
    outputs = [(b.output_low, b.output_tokens, b.output_high) for b in workload.buckets]
    return _around_mean(np.array(inputs)[which], rng), _around_mean(np.array(outputs)[which], rng)


def _around_mean(rows: Floats, rng: np.random.Generator) -> Ints:
    """Return whole lengths for rows of (low, mean, high): uniform about the mean, in (low, high]."""
    low, mean, high = rows.T
    reach = np.maximum(0, np.minimum(mean - (low + 1), high - mean))
    lengths = mean + reach * rng.uniform(-1, 1, size=len(rows))
    # Rounding up with the fraction's probability keeps the mean where a plain round would not.
    whole: Ints = np.maximum(1, np.floor(lengths + rng.random(len(rows)))).astype(np.int64)
    return whole
