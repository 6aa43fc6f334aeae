"""The arms of the simulated ablation, and one run of one of them."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from settings import Setting, engine_of, latency_of, lengths_of, partition_of

from hgpu.core.phases import PhaseOptions
from hgpu.simulator.arrivals import ClosedLoop
from hgpu.simulator.engine import simulate
from hgpu.simulator.partitioned import simulate_partitioned
from hgpu.simulator.result import EngineRun, Measure
from hgpu.simulator.verdict import Window, saturated_rps
from hgpu.workloads.replay import poisson_trace

AGEING_TOK_PER_S = 15.0  # Nexus's γ
TUNING_SEED, TUNING_LOAD = 0, 0.8
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Arm:
    name: str
    ageing_tok_per_s: float | None = None
    budget: bool = False
    lanes: bool = False
    compute_saturates: float = 1.0  # the share of the SMs with which lanes compute as fast as with all

    def phases(self, setting: Setting) -> PhaseOptions:
        return PhaseOptions(self.ageing_tok_per_s, setting.tpot_s if self.budget else None)


ARMS = (
    Arm("FCFS (stock)"),
    Arm("SPF", AGEING_TOK_PER_S),
    Arm("budget", budget=True),
    Arm("SPF + budget", AGEING_TOK_PER_S, budget=True),
    Arm("lanes", lanes=True),
    Arm("lanes + SPF", AGEING_TOK_PER_S, lanes=True),
    Arm("lanes 0.8 + SPF", AGEING_TOK_PER_S, lanes=True, compute_saturates=0.8),
)
FCFS, SPF, BUDGET, BOTH, LANES, LANES_SPF, FASTER = (arm.name for arm in ARMS)


@dataclass(frozen=True, slots=True)
class Job:
    setting: Setting
    arm: Arm
    load: float
    seed: int
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Row:
    """One run. TTFT, TPOT and the longest wait for a first token are in seconds."""

    setting: str
    arm: str
    load: float
    seed: int
    rate_rps: float
    requests: int
    ttft_mean_s: float
    ttft_p95_s: float
    ttft_p99_s: float
    ttft_max_s: float
    tpot_mean_s: float
    tpot_p95_s: float
    tpot_p99_s: float
    output_tok_per_s: float
    met: float
    goodput_rps: float


@cache
def saturation_rps(setting: Setting) -> float:
    """Return what the stock engine gets through where all requests are there from the start."""
    requests = 6000
    inputs, outputs = lengths_of(setting.lengths).sample(requests, TUNING_SEED)
    run = simulate(latency_of(setting), engine_of(setting), ClosedLoop(requests, inputs, outputs))
    return saturated_rps(run, Window(requests // 4, 3 * requests // 4))


def best_share(setting: Setting, compute_saturates: float) -> float:
    """Return the prompts' share whose lanes serve the most requests in time, on a seed of its own."""
    lanes = Arm("", AGEING_TOK_PER_S, lanes=True, compute_saturates=compute_saturates)
    runs = [measured(Job(setting, lanes, TUNING_LOAD, TUNING_SEED, 600.0, share)) for share in SHARES]
    return SHARES[max(range(len(SHARES)), key=lambda number: runs[number].met)]


def measured(job: Job) -> Row:
    setting = job.setting
    rate_rps = job.load * saturation_rps(setting)
    lengths = lengths_of(setting.lengths)
    trace = poisson_trace(lengths, rate_rps, requests=round(rate_rps * job.seconds), seed=job.seed)
    latency, engine, phases = latency_of(setting), engine_of(setting), job.arm.phases(setting)
    if job.arm.lanes:
        partition = partition_of(setting, job.share, job.arm.compute_saturates)
        run = simulate_partitioned(latency, partition, engine, trace, phases=phases)
    else:
        run = simulate(latency, engine, trace, phases=phases)
    met = in_time(setting, run)
    return Row(
        setting.name,
        job.arm.name,
        job.load,
        job.seed,
        rate_rps,
        trace.requests,
        float(run.ttft_s.mean()),
        *run.quantiles(Measure.TTFT, (95, 99, 100)).tolist(),
        float(run.tpot_s.mean()),
        *run.quantiles(Measure.TPOT, (95, 99)).tolist(),
        run.output_tok_per_s,
        met,
        met * trace.requests / run.makespan_s,
    )


def in_time(setting: Setting, run: EngineRun) -> float:
    """Return the part of the requests that kept both objectives; one token has no TPOT to keep."""
    tpot_s = (run.end_s - run.first_token_s) / np.maximum(run.output_tokens - 1, 1)
    kept = (run.ttft_s <= setting.ttft_s) & (tpot_s <= setting.tpot_s)
    return float(kept.mean())
