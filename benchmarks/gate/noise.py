"""Made runs of a load test, with noise between requests and between runs."""

from dataclasses import dataclass

import numpy as np

from hgpu.bench.runs import Run

TTFT_LIMIT_S, TPOT_LIMIT_S = 1.0, 0.050


@dataclass(frozen=True, slots=True)
class Noise:
    """How a service behaves.

    TTFT is log-normal with a heavy tail (queueing), TPOT narrow. A run has a factor of its own on each, of
    which `shared` is the machine's and falls on both; the rate of requests is held by the generator.
    """

    run_sd: float = 0.02
    shared: float = 0.7
    ttft_median_s: float = 0.25
    ttft_spread: float = 0.5
    tpot_median_s: float = 0.030
    tpot_spread: float = 0.12
    output_tokens: int = 128
    rate_rps: float = 5.0


def made_run(noise: Noise, requests: int, slower: float, rng: np.random.Generator) -> Run:
    """Return a run whose latencies are `slower` times as long, TTFT and TPOT alike."""
    machine, *own = rng.normal(size=3)
    both = [noise.shared * machine + np.sqrt(1 - noise.shared**2) * part for part in own]
    factors = slower * np.exp(noise.run_sd * np.array(both))
    ttft = factors[0] * noise.ttft_median_s * np.exp(noise.ttft_spread * rng.normal(size=requests))
    tpot = factors[1] * noise.tpot_median_s * np.exp(noise.tpot_spread * rng.normal(size=requests))
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


def made_arm(noise: Noise, runs: int, requests: int, slower: float, rng: np.random.Generator) -> list[Run]:
    return [made_run(noise, requests, slower, rng) for _ in range(runs)]
