"""Proof of a plan: its fleet, replayed at multiples of its rate and with machines lost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.payloads.simulation import ObjectiveRow, RunRow, SimulationPayload, Spread
from hgpu.core.errors import InputError
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.phases import PhaseOptions
from hgpu.core.provenance import Provenance, weakest
from hgpu.core.slo import Tier
from hgpu.core.step import LatencyModel
from hgpu.core.workload import Workload
from hgpu.simulator.attainment import Attained, Attainment, attainment
from hgpu.simulator.balance import DEFAULT_BALANCER
from hgpu.simulator.fleet import EnginePool, Fleet, FleetRun, replay
from hgpu.simulator.result import Measure, RequestTimes
from hgpu.simulator.routing import Routing
from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Trace

REQUESTS = 20_000

Progress = Callable[[int, int, str], None]  # done, of how many, of what


@dataclass(frozen=True, slots=True)
class ProofOptions:
    """Multiples of the plan's rate to replay at; whether to lose a machine of each pool in turn.

    With `prefix_caching`, engines reuse the prefixes that the requests of a trace share. With `phases`, they
    decide about prompts by that policy.
    """

    multipliers: tuple[float, ...] = (0.5, 0.8, 1.0, 1.2)
    lose: bool = False
    balance: str = DEFAULT_BALANCER
    requests: int | None = None
    seed: int = 0
    prefix_caching: bool = False
    phases: PhaseOptions | None = None


def multipliers_of(text: str) -> tuple[float, ...]:
    """Return the numbers of a list such as `0.5,1,1.2`; raise InputError for what is none."""
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        raise InputError(
            f"bad rates '{text}'",
            "they are multiples of the plan's rate: positive numbers, separated by commas",
            "give such as --rates 0.5,0.8,1,1.2",
        )
    return tuple(dict.fromkeys(numbers))


@dataclass(frozen=True, slots=True)
class Promise:
    """What a plan promises to each tier of requests, and the requests that it was made for."""

    service: str
    tiers: tuple[Tier, ...]
    workload: Workload
    rate_rps: float


def promise_of(plan: PlanPayload) -> Promise:
    """Return a plan's promise; raise InputError where it has none (a plan of a Mélange file)."""
    tiers = tuple(plan.tiers) or ((Tier("", 1.0, plan.slo),) if plan.slo else ())
    if not tiers or plan.workload is None:
        raise InputError(
            f"the plan of '{plan.service}' can't be simulated",
            "it was made from given capacities, so it has neither objectives nor request lengths",
            "plan from a spec: hgpu plan spec.yaml",
        )
    return Promise(plan.service, tiers, plan.workload, plan.workload.rate_rps * plan.served)


def fleet_of(plan: PlanPayload, latency: Mapping[OperatingPoint, LatencyModel]) -> Fleet:
    """Return a plan's fleet, given the latency model of each of its operating points."""
    pools = tuple(
        EnginePool(
            row.pool,
            latency[row.point],
            row.point.engine,
            row.engines,
            row.count,
            row.usd_per_hour,
            row.phases.options if row.phases else None,
        )
        for row in plan.allocation
    )
    shares = tuple(tuple(row.shares.get(pool.name, 0.0) for pool in pools) for row in plan.routing)
    promise = promise_of(plan)
    return Fleet(
        pools, Routing(promise.workload.buckets, shares, tuple(tier.share for tier in promise.tiers))
    )


def planned_arrivals(promise: Promise, trace: Trace | None, options: ProofOptions) -> Trace:
    """Return arrivals at the plan's rate: of a trace, stretched to it, or Poisson with the plan's lengths.

    Raises InputError where prefixes are to be reused and nobody knows of any.
    """
    if options.prefix_caching and (trace is None or trace.prefix_blocks is None):
        raise InputError(
            "prefix caching can't be simulated",
            "the requests come without hashes of their prompt blocks, so nobody knows what they share",
            "give a trace that has them: --trace with a Mooncake file that has hash_ids",
        )
    rate_rps = promise.rate_rps
    if trace is None:
        count = options.requests or REQUESTS
        return poisson_trace(promise.workload, rate_rps, requests=count, seed=options.seed)
    kept = trace.requests if options.requests is None else min(options.requests, trace.requests)
    head = replace(
        trace,
        arrivals_s=trace.arrivals_s[:kept],
        input_tokens=trace.input_tokens[:kept],
        output_tokens=trace.output_tokens[:kept],
        prefix_blocks=trace.prefix_blocks[:kept] if trace.prefix_blocks is not None else None,
    )
    stretch = head.rate_rps / rate_rps
    source = (
        f"{trace.source}; arrivals × {stretch:.4g}, from {head.rate_rps:.4g} to {rate_rps:.4g} requests/s"
    )
    return replace(head, arrivals_s=head.arrivals_s * stretch, source=source)


def prove(
    promise: Promise, fleet: Fleet, arrivals: Trace, options: ProofOptions, progress: Progress
) -> SimulationPayload:
    """Replay arrivals at each multiple of the plan's rate, then at the rate itself with machines lost."""
    cases: list[tuple[float, str | None]] = [(multiplier, None) for multiplier in options.multipliers]
    if options.lose:
        cases += [(1.0, pool.name) for pool in fleet.pools]
    runs = []
    for multiplier, lost in cases:
        left = fleet.less_a_machine(lost) if lost else fleet
        trace = replace(arrivals, arrivals_s=arrivals.arrivals_s / multiplier)
        run = replay(left, trace, options.balance, options.seed, options.prefix_caching, options.phases)
        runs.append(_run_row(promise, left, run, multiplier, lost))
        progress(len(runs), len(cases), "runs")
    return SimulationPayload(
        service=promise.service,
        arrivals=arrivals.source,
        balance=options.balance,
        seed=options.seed,
        provenance=weakest([Provenance.SIMULATED, *(pool.latency.provenance for pool in fleet.pools)]),
        runs=runs,
    )


def breaks_promise(payload: SimulationPayload) -> bool:
    """Tell whether the run at the plan's own rate, nothing lost, was made and missed an objective."""
    return any(run.multiplier == 1 and run.lost is None and not run.met for run in payload.runs)


def _run_row(promise: Promise, fleet: Fleet, run: FleetRun, multiplier: float, lost: str | None) -> RunRow:
    attained = attainments(promise, run)
    usd = fleet.usd_per_hour * run.makespan_s / 3600
    output_tokens = int(run.served.output_tokens.sum())
    return RunRow(
        multiplier=multiplier,
        rate_rps=promise.rate_rps * multiplier,
        lost=lost,
        requests=run.requests,
        rejected=run.rejected,
        makespan_s=run.makespan_s,
        objectives=[
            _objective_row(tier.name, row)
            for tier, made in zip(promise.tiers, attained, strict=True)
            for row in made.objectives
        ],
        goodput_share=sum(made.within for made in attained) / run.requests,
        met=all(made.met for made in attained),
        **{str(measure): _spread(run.served, measure) for measure in Measure},
        usd_per_hour=fleet.usd_per_hour,
        usd_per_million_output_tokens=_per_million(usd, output_tokens),
        usd_per_million_tokens=_per_million(usd, output_tokens + int(run.input_tokens.sum())),
        pools=list(run.pools),
    )


def attainments(promise: Promise, run: FleetRun, pool: int | None = None) -> list[Attainment]:
    """Return what each tier attained; of a pool (by number) alone, what those of its requests did."""
    made = []
    for number, tier in enumerate(promise.tiers):
        mine = run.tier == number
        requests = run.tier_requests[number]
        if pool is not None:
            mine &= run.pool == pool
            requests = int(mine.sum())
        made.append(attainment(run.served.of(mine), requests, tier.slo))
    return made


def _objective_row(tier: str, row: Attained) -> ObjectiveRow:
    return ObjectiveRow(
        tier=tier,
        objective=row.name,
        limit_s=row.objective.limit_s,
        percentile=row.objective.percentile,
        attainment=row.share,
        met=row.met,
    )


def _per_million(usd: float, tokens: int) -> float | None:
    return usd / tokens * 1e6 if tokens else None


def _spread(served: RequestTimes, measure: Measure) -> Spread | None:
    values_s = getattr(served, measure)
    if not len(values_s):
        return None
    p50, p90, p95, p99 = (float(value) for value in served.quantiles(measure))
    return Spread(mean=float(values_s.mean()), p50=p50, p90=p90, p95=p95, p99=p99)
