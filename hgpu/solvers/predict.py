"""What a pool of a plan will do at its share of the load."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hgpu.artifacts.payloads.plan import Prediction
from hgpu.core.allocation import Pool
from hgpu.core.phases import PhaseOptions, Phases
from hgpu.core.provenance import Provenance, weakest
from hgpu.core.workload import Workload
from hgpu.latency.capacity import lengths_of, percentiles
from hgpu.latency.confidence import slower
from hgpu.latency.features import Floats
from hgpu.latency.pd import phase_options
from hgpu.latency.queueing import steady_state
from hgpu.simulator.engine import simulate
from hgpu.solvers.demand import Demand, Row
from hgpu.workloads.replay import poisson_trace

SIMULATED_REQUESTS = 4000  # a p99 is then known within 16 %


def told(demand: Demand, pool: Pool) -> Phases | None:
    """Return what the scheduler of a pool's engines is told, with steps as slow as they are planned to be."""
    options = phase_options(pool.point, [tier.slo for tier in demand.service.tiers])
    if options is None:
        return None
    latency = demand.candidates.latency[pool.point]
    return Phases(options, slower(latency, demand.candidates.factor(pool.point)).step)


def predict(
    demand: Demand, pool: Pool, name: str, rows: Sequence[Row], shares: Sequence[float]
) -> Prediction:
    """Predict a pool's latencies at its load, spread evenly over its engines, from the unslowed model.

    In mode `mixed` by the closed form, at the percentile of the bucket that fares worst; in mode `pd`, which
    that doesn't know, by a simulation of one engine, at the percentile of all its requests.
    """
    pool_rps = np.array([row.rate_rps * share for row, share in zip(rows, shares, strict=True)])
    rates_rps = pool_rps / pool.engines
    phases = told(demand, pool)
    if phases is not None:
        return _simulated(demand, pool, name, rows, rates_rps, phases.options)
    latency = demand.candidates.latency[pool.point]
    lengths = lengths_of([row.bucket for row in rows])
    state = steady_state(latency, pool.point.engine, lengths, rates_rps[None, :], *_strictest(demand))
    weights = rates_rps / max(rates_rps.sum(), 1e-300)
    used = weights > 0
    return Prediction(
        pool=name,
        rate_rps=float(rates_rps.sum() * pool.engines),
        ttft_mean_s=float(weights[used] @ state.ttft_mean_s[0, used]),
        ttft_slo_s=float(state.ttft_high_s[0, used].max(initial=0.0)),
        tpot_mean_s=float(weights[used] @ state.tpot_mean_s[0, used]),
        tpot_slo_s=float(state.tpot_high_s[0, used].max(initial=0.0)),
        concurrency=float(state.concurrency[0, 0]),
        provenance=latency.provenance,
    )


def _strictest(demand: Demand) -> tuple[float, float]:
    """The highest percentiles that any tier counts TTFT and TPOT at."""
    ttft, tpot = zip(*(percentiles(tier.slo) for tier in demand.service.tiers), strict=True)
    return max(ttft), max(tpot)


def _simulated(
    demand: Demand, pool: Pool, name: str, rows: Sequence[Row], rates_rps: Floats, options: PhaseOptions
) -> Prediction:
    latency, rate_rps = demand.candidates.latency[pool.point], float(rates_rps.sum())
    buckets = tuple(
        replace(row.bucket, share=float(rate) / rate_rps)
        for row, rate in zip(rows, rates_rps, strict=True)
        if rate > 0
    )
    workload = Workload(name, rate_rps, buckets, SIMULATED_REQUESTS, demand.service.workload.name)
    trace = poisson_trace(workload, rate_rps, requests=SIMULATED_REQUESTS)
    run = simulate(latency, pool.point.engine, trace, phases=options)
    ttft_percentile, tpot_percentile = _strictest(demand)
    tpot_s = run.tpot_s[np.isfinite(run.tpot_s)] if np.isfinite(run.tpot_s).any() else np.zeros(1)
    return Prediction(
        pool=name,
        rate_rps=rate_rps * pool.engines,
        ttft_mean_s=float(run.ttft_s.mean()),
        ttft_slo_s=float(np.percentile(run.ttft_s, ttft_percentile)),
        tpot_mean_s=float(tpot_s.mean()),
        tpot_slo_s=float(np.percentile(tpot_s, tpot_percentile)),
        concurrency=float((run.end_s - run.arrival_s).sum() / run.makespan_s),
        provenance=weakest([Provenance.SIMULATED, latency.provenance]),
    )
