"""What a point of load says: its figures, how many requests kept the objectives, and whether to believe it.

A point is void where one of these holds:

- no request came back whole, or more than `max_error_rate` of them failed;
- the harness was late: its lag at p99 is beyond 50 ms, or beyond a tenth of the mean TTFT where that is
  more than 5 ms (or beyond what the user allows). Latency runs from the intended send, so that lag is in
  it;
- fewer than 95 % of the requests a second were sent that the schedule has.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.load import LoadPoint, Spread
from hgpu.bench.arrivals import Load, Schedule
from hgpu.bench.exchange import kind_of
from hgpu.bench.outcomes import Outcomes
from hgpu.core.slo import Slo
from hgpu.workloads.trace import Floats

LAG_LIMIT_S = 0.050
LAG_FLOOR_S = 0.005
LAG_PART = 0.1  # of the mean TTFT
SENT_PART = 0.95
Kept = dict[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a point is judged by."""

    slo: Slo | None = None
    max_error_rate: float = 0.01
    max_lag_s: float | None = None


def load_point(load: Load, name: str, plan: Schedule, outcomes: Outcomes, rules: Rules) -> LoadPoint:
    """Return the figures of a load that was sent."""
    good = outcomes.good
    kept = kept_objectives(outcomes, rules.slo)
    attainment = {name: float(which.mean()) for name, which in kept.items()}
    achieved_rps = _achieved_rps(outcomes, plan)
    ends_s = outcomes.end_s[good]
    output_tokens = int(outcomes.output_tokens[good].sum())
    two = good & (outcomes.output_tokens > 1)
    lag_p50_s, lag_p99_s = (float(q) for q in np.quantile(outcomes.lag_s, [0.5, 0.99]))
    kinds = Counter(kind_of(error) for error in outcomes.error if error)
    open_rps = _rate(outcomes.intended_s)
    return LoadPoint(
        name=name,
        arrivals=load.arrivals,
        target_rps=None if plan.intended_s is None else load.rate_rps or open_rps,
        concurrency=load.concurrency,
        seed=load.seed,
        duration_s=plan.duration_s,
        requests=outcomes.requests,
        errors=int((~good).sum()),
        error_kinds=dict(sorted(kinds.items())),
        achieved_rps=achieved_rps,
        input_tokens=int(outcomes.input_tokens[good].sum()),
        output_tokens=output_tokens,
        output_tok_per_s=output_tokens / float(ends_s.max() - outcomes.sent_s.min()) if len(ends_s) else 0.0,
        ttft_s=spread(outcomes.ttft_s[good]),
        ttft_from_send_s=spread((outcomes.first_s - outcomes.sent_s)[good]),
        tpot_s=spread(outcomes.tpot_s[two]),
        itl_s=spread(outcomes.gaps_s),
        e2e_s=spread(outcomes.e2e_s[good]),
        attainment=attainment,
        goodput_rps=attainment["all"] * achieved_rps if attainment else None,
        harness_lag_p50_s=lag_p50_s,
        harness_lag_p99_s=lag_p99_s,
        validity=_validity(outcomes, lag_p99_s, rules, plan),
    )


def kept_objectives(outcomes: Outcomes, slo: Slo | None) -> Kept:
    """Return which requests kept each objective, and which kept `all`; one that failed kept none.

    A request of one output token has no TPOT, and keeps that objective.
    """
    if slo is None:
        return {}
    rows = (
        ("ttft", slo.ttft, outcomes.ttft_s),
        ("tpot", slo.tpot, outcomes.tpot_s),
        ("e2e", slo.e2e, outcomes.e2e_s),
    )
    good = outcomes.good
    kept = {name: good & (value_s <= limit.limit_s) for name, limit, value_s in rows if limit}
    return {**kept, "all": np.logical_and.reduce(list(kept.values()))} if kept else {}


def spread(values_s: Floats) -> Spread | None:
    """Return mean and percentiles, None of nothing."""
    if not len(values_s):
        return None
    p50, p90, p95, p99 = (float(q) for q in np.quantile(values_s, [0.5, 0.9, 0.95, 0.99]))
    return Spread(mean=float(np.mean(values_s)), p50=p50, p90=p90, p95=p95, p99=p99)


def _achieved_rps(outcomes: Outcomes, plan: Schedule) -> float:
    """Return the rate at which requests were sent; of a closed loop, at which they came back whole."""
    if plan.intended_s is not None:
        return _rate(outcomes.sent_s) or outcomes.requests / max(plan.duration_s, 1e-9)
    good = outcomes.good
    span_s = max(plan.duration_s, float(outcomes.end_s.max()))
    return float(good.sum()) / span_s


def _rate(moments_s: Floats) -> float:
    """Return requests/s: n requests span n − 1 intervals."""
    span_s = float(moments_s.max() - moments_s.min())
    return (len(moments_s) - 1) / span_s if span_s > 0 else 0.0


def _validity(outcomes: Outcomes, lag_p99_s: float, rules: Rules, plan: Schedule) -> Validity:
    good, reasons = outcomes.good, []
    errors = int((~good).sum())
    if errors > rules.max_error_rate * outcomes.requests or not good.any():
        first = next(error for error in outcomes.error if error)
        reasons.append(f"{errors} of {outcomes.requests} requests failed; the first: {first}")
    ttft_s = float(outcomes.ttft_s[good].mean()) if good.any() else 0.0
    limit_s = rules.max_lag_s or min(LAG_LIMIT_S, max(LAG_FLOOR_S, LAG_PART * ttft_s))
    if lag_p99_s > limit_s:
        reasons.append(
            f"the harness was {lag_p99_s * 1e3:.1f} ms late at p99; {limit_s * 1e3:.1f} ms are allowed"
        )
    scheduled_rps, sent_rps = _rate(outcomes.intended_s), _rate(outcomes.sent_s)
    if plan.intended_s is not None and sent_rps < SENT_PART * scheduled_rps:
        reasons.append(f"{sent_rps:.1f} requests/s were sent, {scheduled_rps:.1f} were due")
    return Validity(valid=not reasons, reasons=reasons)
