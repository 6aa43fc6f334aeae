"""A plan's prediction against what its deployment does."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.bench import BenchPayload, BenchRow, Quantiles
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.bench.load import run_load
from hgpu.bench.outcomes import Outcomes
from hgpu.core.errors import InputError, InvalidMeasurement
from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Floats

LAG_LIMIT = 0.1  # harness lag at p99, as a part of the mean TTFT


@dataclass(frozen=True, slots=True)
class Verified:
    """The comparison, and whether it may be believed."""

    payload: BenchPayload
    validity: Validity


def verify(
    plan: PlanPayload,
    url: str,
    model: str,
    duration_s: float,
    seed: int,
    finished: Callable[[int, int], None],
) -> Verified:
    """Send the plan's own workload at its own rate to `url` and set measured beside predicted.

    Raises InputError for a plan without a workload (of a Mélange file), InvalidMeasurement where no
    request succeeds.
    """
    if plan.workload is None or plan.model is None:
        raise InputError(
            "the plan has no workload to send", "it was made from given capacities", "plan from a spec"
        )
    trace = poisson_trace(plan.workload, plan.workload.rate_rps, duration_s=duration_s, seed=seed)
    outcomes = run_load(
        url, model, trace, plan.model.vocab_size, seed, lambda done: finished(done, trace.requests)
    )
    if not (outcomes.good & (outcomes.output_tokens > 1)).any():
        raise InvalidMeasurement(
            f"no request to {url} succeeded",
            outcomes.error[0] or "every output has one token only",
            "see the engine's log",
        )
    row = _row(plan, outcomes, trace.duration_s)
    return Verified(
        BenchPayload(url=url, duration_s=duration_s, seed=seed, rows=[row]), _validity(row, outcomes)
    )


def _row(plan: PlanPayload, outcomes: Outcomes, span_s: float) -> BenchRow:
    good, sent = outcomes.good, outcomes.requests
    total = sum(pool.rate_rps for pool in plan.predicted)
    weights = [pool.rate_rps / total for pool in plan.predicted]
    return BenchRow(
        pool=" + ".join(pool.pool for pool in plan.predicted),
        requests=sent,
        errors=sent - int(good.sum()),
        rate_rps=total,
        achieved_rps=(sent - 1) / span_s if span_s > 0 else 0.0,
        ttft_s=_quantiles(outcomes.ttft_s[good]),
        tpot_s=_quantiles(outcomes.tpot_s[good & (outcomes.output_tokens > 1)]),
        predicted_ttft_mean_s=sum(w * p.ttft_mean_s for w, p in zip(weights, plan.predicted, strict=True)),
        predicted_tpot_mean_s=sum(w * p.tpot_mean_s for w, p in zip(weights, plan.predicted, strict=True)),
        harness_lag_p99_s=float(np.quantile(outcomes.lag_s, 0.99)),
    )


def _validity(row: BenchRow, outcomes: Outcomes) -> Validity:
    reasons = []
    if row.errors:
        first = next(error for error in outcomes.error if error)
        reasons.append(f"{row.errors} of {row.requests} requests failed; the first: {first}")
    if row.harness_lag_p99_s > LAG_LIMIT * row.ttft_s.mean:
        reasons.append(
            f"the harness was {row.harness_lag_p99_s * 1e3:.0f} ms late at p99, too much beside the TTFT"
        )
    return Validity(valid=not reasons, reasons=reasons)


def _quantiles(values_s: Floats) -> Quantiles:
    p50, p90, p99 = (float(q) for q in np.quantile(values_s, [0.5, 0.9, 0.99]))
    return Quantiles(mean=float(np.mean(values_s)), p50=p50, p90=p90, p99=p99)
