"""The highest rate that one engine serves within the objectives, by simulation.

The closed forms of hgpu.latency.capacity say where to look; simulations look only there. One seeded trace
at 1 request/s serves all rates, its arrivals divided by the rate: what differs between two rates is
the rate alone.

The trace has at least 4,000 requests that are judged, and as many as make 40 misses at the highest
percentile: the number of misses is then known within 16 % (1/√40). Before and after them come
`max_num_seqs` more, as that many at most run at once: one lifetime to fill the engine, one to keep
it busy. A run of the same requests, all there from the start, tells which rates the engine can't
keep up with: those need no simulation, and are refused though a bounded run of them may look fine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from hgpu.artifacts.digest import digest_of
from hgpu.artifacts.memo import Memo
from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.phases import PhaseOptions
from hgpu.core.slo import Slo
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Bucket, Workload
from hgpu.latency.capacity import Capacity, refusal
from hgpu.simulator.engine import BLOCK_TOKENS, simulate
from hgpu.simulator.limits import check_lengths, check_options
from hgpu.simulator.rate_search import RateGrid, highest
from hgpu.simulator.verdict import Window, failure, saturated_rps
from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Trace

METHOD = (
    1  # part of every memo's key: raise it when this file, the verdict or the simulator answers otherwise
)
MEMO = ("memo", "capacity")  # the folder under the results
EXPECTED_MISSES = 40
FEWEST_ASIDE = 500

Progress = Callable[[int, int, str], None]  # done, of how many, of what


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """How finely a capacity is sought: within `relative_width`, judging `requests` or more."""

    relative_width: float = 0.03
    requests: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a search that can't end or can't tell."""
        if not 0.001 <= self.relative_width <= 1 or self.requests < 100 or self.seed < 0:
            raise InputError(
                f"bad search: relative width {self.relative_width}, {self.requests} requests, "
                f"seed {self.seed}",
                "the width must be from 0.001 to 1, the requests 100 or more, and the seed 0 or more",
            )

    def judged(self, slo: Slo) -> int:
        """Return how many requests to judge: enough for the highest percentile promised."""
        percentiles = [row.percentile for row in (slo.ttft, slo.tpot, slo.e2e) if row]
        rarest = min((1 - p / 100 for p in percentiles), default=1.0)
        if rarest <= 0:
            raise InputError(
                "no simulation can prove an objective for 100 % of requests",
                "however many are simulated, the next one may miss",
                "ask for a percentile below 100",
            )
        return max(self.requests, math.ceil(round(EXPECTED_MISSES / rarest, 6)))


def refined(
    latency: LatencyModel,
    engine: EngineOptions,
    bucket: Bucket,
    slo: Slo,
    start: Capacity,
    options: RefineOptions | None = None,
    phases: PhaseOptions | None = None,
) -> Capacity:
    """Return the capacity that simulation finds from `start`, the closed form's.

    With `phases`, the engine's scheduler is the phase scheduler. What `start` refuses for a reason that is
    exact (a request too long, a lone one that misses an objective) stays refused. Lone latencies are those
    of `start`.
    """
    options = options or RefineOptions()
    check_options(engine, BLOCK_TOKENS)
    if start.rate_rps == 0 and refusal(latency, engine, bucket, slo, start.lone_ttft_s, start.lone_tpot_s):
        return start
    judged, aside = options.judged(slo), max(engine.max_num_seqs, FEWEST_ASIDE)
    trace = unit_trace(bucket, judged + 2 * aside, options.seed)
    try:
        blocks = latency.kv_capacity_tokens // BLOCK_TOKENS
        check_lengths(trace.input_tokens, trace.output_tokens, engine, blocks, BLOCK_TOKENS)
    except InputError as error:
        return replace(start, rate_rps=0.0, reason=f"{error.what}: {error.why}")
    failed = _judge(latency, engine, slo, trace, Window(aside, aside + judged), phases)
    rate_rps, reason = highest(failed, start.rate_rps, RateGrid(options.relative_width))
    return replace(start, rate_rps=rate_rps, reason=f"{reason} in simulation" if reason else "")


def _judge(
    latency: LatencyModel,
    engine: EngineOptions,
    slo: Slo,
    trace: Trace,
    window: Window,
    phases: PhaseOptions | None,
) -> Callable[[float], str]:
    """Return the function that tells why a rate fails; empty where it doesn't."""
    at_once = replace(trace, arrivals_s=np.zeros(trace.requests))
    most_rps = saturated_rps(simulate(latency, engine, at_once, phases=phases), window)

    def failed(rate_rps: float) -> str:
        if rate_rps >= most_rps:
            return f"the queue grows, as the engine gets through {most_rps:.3g} requests/s at most,"
        scaled = replace(trace, arrivals_s=trace.arrivals_s / rate_rps)
        return failure(simulate(latency, engine, scaled, phases=phases), slo, window)

    return failed


def refined_all(
    latency: LatencyModel,
    engine: EngineOptions,
    pairs: Sequence[tuple[Bucket, Capacity]],
    slo: Slo,
    memo: Memo,
    progress: Progress,
    options: RefineOptions | None = None,
    phases: PhaseOptions | None = None,
) -> list[Capacity]:
    """Return the refined capacity of each (bucket, start) of one operating point, in order.

    What the memo holds isn't simulated again.
    """
    options = options or RefineOptions()
    found = []
    for bucket, start in pairs:
        found.append(_remembered(latency, engine, bucket, slo, start, options, memo, phases))
        progress(len(found), len(pairs), "capacities")
    return found


def unit_trace(bucket: Bucket, requests: int, seed: int) -> Trace:
    """Return a bucket's requests with Poisson arrivals at 1 request/s.

    Gaps are stretched so that their mean is 1 s in this sample too. Lengths are drawn within the bucket's
    edges; a draw longer in all than the bucket's longest member, which no request is, loses the
    output tokens that are too many.
    """
    alone = Workload(bucket.name, 1.0, (replace(bucket, share=1.0),), requests, bucket.name)
    trace = poisson_trace(alone, 1.0, requests=requests, seed=seed)
    longest = bucket.max_total_tokens or bucket.input_high + bucket.output_high
    most = (longest - trace.input_tokens).clip(1)
    return replace(
        trace,
        arrivals_s=trace.arrivals_s * trace.rate_rps,
        output_tokens=trace.output_tokens.clip(max=most),
    )


def _remembered(
    latency: LatencyModel,
    engine: EngineOptions,
    bucket: Bucket,
    slo: Slo,
    start: Capacity,
    options: RefineOptions,
    memo: Memo,
    phases: PhaseOptions | None,
) -> Capacity:
    key = digest_of(
        ({"phases": asdict(phases)} if phases else {})
        | {
            "method": METHOD,
            "step": asdict(latency.step),
            "kv_capacity_tokens": latency.kv_capacity_tokens,
            "request_s": latency.request_s,
            "engine": asdict(engine),
            "bucket": asdict(replace(bucket, share=1.0)),
            "slo": asdict(slo),
            "start": [start.rate_rps, start.reason],
            "options": asdict(options),
        }
    )
    known = memo.get(key)
    if known is not None:
        return replace(start, rate_rps=float(known["rate_rps"]), reason=str(known["reason"]))
    capacity = refined(latency, engine, bucket, slo, start, options, phases)
    memo.put(key, {"rate_rps": capacity.rate_rps, "reason": capacity.reason})
    return capacity
