"""What a statistic of one run would have been, had its requests been drawn again.

A run is `n` requests; a bootstrap sample of it is `n` draws with replacement. The statistic of many such
samples is drawn here without making the samples, except for means.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CHUNK = 4_000_000  # indices in memory at once, for means


def resampled_quantile(values: Floats, q: float, draws: int, rng: np.random.Generator) -> Floats:
    """Return `draws` bootstrap samples' quantiles (linear between order statistics, as `numpy.quantile`).

    The k-th smallest of n draws from x(1) ≤ … ≤ x(n) is x(⌈n·U(k)⌉), where U(k), the k-th smallest of n
    uniform draws, is Beta(k, n+1−k); the next one up is U(k+1) = U(k) + (1 − U(k))·Beta(1, n−k).
    """
    ordered = np.sort(values)
    n = len(ordered)
    below = int(np.floor((n - 1) * q))
    weight = (n - 1) * q - below
    rank = below + 1
    uniform = rng.beta(rank, n + 1 - rank, draws)
    lower = _at(ordered, uniform)
    if weight == 0.0 or rank == n:
        return lower
    upper = _at(ordered, uniform + (1.0 - uniform) * rng.beta(1, n - rank, draws))
    return lower + weight * (upper - lower)


def resampled_share(hits: int, n: int, draws: int, rng: np.random.Generator) -> Floats:
    """Return `draws` bootstrap samples' shares of `hits` among `n` requests, which are binomial."""
    return rng.binomial(n, hits / n, draws) / n


def resampled_mean(values: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """Return `draws` bootstrap samples' means."""
    n = len(values)
    rows = max(1, CHUNK // n)
    chunks = [
        values[rng.integers(0, n, (min(rows, draws - start), n))].mean(axis=1)
        for start in range(0, draws, rows)
    ]
    return np.concatenate(chunks)


def _at(ordered: Floats, uniform: Floats) -> Floats:
    n = len(ordered)
    return ordered[np.clip(np.ceil(n * uniform).astype(np.int64) - 1, 0, n - 1)]
