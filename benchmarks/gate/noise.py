"""Made runs of a load test, with noise between requests and between runs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hgpu.bench.runs import Run

TTFT_LIMIT_S, TPOT_LIMIT_S = 1.0, 0.050


@dataclass(frozen=True, slots=True)
class Noise:
    """How a service behaves.

    TTFT is log-normal with a heavy tail (queueing, long prompts), TPOT narrow. All runs send the same trace,
    so that `traced` of a request's spread is the same in each run of it. A run has a factor of its own on
    TTFT and on TPOT, of which `shared` is the machine's; the rate of requests is held by the generator.
    """

    run_sd: float = 0.02
    shared: float = 0.7
    traced: float = 0.8
    ttft_median_s: float = 0.25
    ttft_spread: float = 0.5
    tpot_median_s: float = 0.030
    tpot_spread: float = 0.12
    output_tokens: int = 128
    rate_rps: float = 5.0


def made_run(noise: Noise, trace: NDArray[np.float64], slower: float, rng: np.random.Generator) -> Run:
    """Return a run whose latencies are `slower` times as long, TTFT and TPOT alike."""
    requests = trace.shape[1]
    spread = mixed(noise.traced, trace, rng.normal(size=trace.shape))
    factors = slower * np.exp(noise.run_sd * mixed(noise.shared, rng.normal(), rng.normal(size=2)))
    ttft = factors[0] * noise.ttft_median_s * np.exp(noise.ttft_spread * spread[0])
    tpot = factors[1] * noise.tpot_median_s * np.exp(noise.tpot_spread * spread[1])
    duration = requests / noise.rate_rps
    return Run(
        point="load",
        ttft_s=ttft,
        tpot_s=tpot,
        e2e_s=ttft + tpot * (noise.output_tokens - 1),
        requests=requests,
        failed=0,
        kept=int(((ttft <= TTFT_LIMIT_S) & (tpot <= TPOT_LIMIT_S)).sum()),
        duration_s=duration,
        output_tok_per_s=requests * noise.output_tokens / duration,
    )


def made_arms(
    noise: Noise, runs: int, requests: int, slower: float, rng: np.random.Generator
) -> tuple[list[Run], list[Run]]:
    """Return runs of a service, and of one that is `slower`, all of one trace."""
    trace = rng.normal(size=(2, requests))
    base, head = ([made_run(noise, trace, times, rng) for _ in range(runs)] for times in (1.0, slower))
    return base, head


def mixed(share: float, common: NDArray[np.float64] | float, own: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard normal values of which `share` (a correlation's root) is common."""
    return np.asarray(share * np.asarray(common) + np.sqrt(1 - share**2) * own)
