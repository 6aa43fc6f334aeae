"""Mode `pd` of one engine: the phase scheduler keeps TPOT, so that an engine may be loaded higher.

Its options follow from the objectives. The budget keeps the strictest TPOT, less a margin for what real steps
take beyond their prediction. γ lets nobody be overtaken for longer than the strictest TTFT objective.

The closed forms of `hgpu.latency.capacity` know vLLM's own scheduler only. For this mode they bound: with
TPOT left to the scheduler, what remains is TTFT, the seats and the KV cache. How near an engine comes to that
is what simulation says, and a plan never rests on the bound (`hgpu.solvers.refine`).
"""

from collections.abc import Sequence
from dataclasses import replace

from hgpu.core.operating_point import EngineOptions, Mode, OperatingPoint
from hgpu.core.phases import PhaseOptions
from hgpu.core.slo import Slo
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Bucket
from hgpu.latency.capacity import Capacity, capacities, refusal

MARGIN = 0.95  # of the TPOT objective: real vLLM's p99 was 1.02 of what was held, 1.05 on a busy machine


def phase_options(point: OperatingPoint, slos: Sequence[Slo]) -> PhaseOptions | None:
    """Return what an engine's scheduler is told to keep all of some objectives; None in other modes."""
    if point.mode is not Mode.PD:
        return None
    tpot_s = min((slo.tpot.limit_s for slo in slos if slo.tpot), default=None)
    ttft_s = min((slo.ttft.limit_s for slo in slos if slo.ttft), default=None)
    return PhaseOptions(
        ageing_tok_per_s=None if ttft_s is None else point.engine.max_model_len / ttft_s,
        tpot_s=None if tpot_s is None else MARGIN * tpot_s,
    )


def point_capacities(
    latency: LatencyModel, point: OperatingPoint, buckets: tuple[Bucket, ...], slo: Slo
) -> tuple[Capacity, ...]:
    """Return the closed form's capacity of an engine for each bucket; in mode `pd`, the bound."""
    if point.mode is not Mode.PD or slo.tpot is None:
        return capacities(latency, point.engine, buckets, slo)
    free = capacities(latency, point.engine, buckets, replace(slo, tpot=None))
    return tuple(
        _kept(latency, point.engine, bucket, slo, capacity)
        for bucket, capacity in zip(buckets, free, strict=True)
    )


def _kept(latency: LatencyModel, engine: EngineOptions, bucket: Bucket, slo: Slo, free: Capacity) -> Capacity:
    """Return a capacity, or 0 where even a lone request misses an objective."""
    reason = refusal(latency, engine, bucket, slo, free.lone_ttft_s, free.lone_tpot_s) or free.reason
    return replace(free, rate_rps=0.0, reason=reason) if reason else free
