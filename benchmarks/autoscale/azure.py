"""A static fleet, a threshold autoscaler and hgpu's control loop on the Azure code trace, simulated.

    python benchmarks/autoscale/azure.py AZURE.csv            # the day
    python benchmarks/autoscale/azure.py AZURE.csv --hour     # the trace's own hour, as it is

Prints the tables of README.md. What hgpu plans and learns from is the trace's first half; what is
replayed is its second half. The static fleet alone knows what comes.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import mkdtemp

import numpy as np
from loads import DAY_S, between, busiest_hour, by_day, in_step, part, streams

from hgpu.core.slo import Slo
from hgpu.core.workload import Workload
from hgpu.latency.select import select_latency
from hgpu.runtime.control.loop import Loop, Rules
from hgpu.runtime.control.pools import ControlledPool
from hgpu.runtime.control.reactive import Reactive, Scaler
from hgpu.runtime.control.simulated import SimulatedLoop, elastic_pools, first_orders
from hgpu.simulator.attainment import attainment
from hgpu.simulator.elastic import Controller, ElasticRun, Orders, Unchanging, play
from hgpu.solvers.demand import Candidates, Demand
from hgpu.solvers.plan import Planned
from hgpu.solvers.prove import Prover
from hgpu.solvers.rows import fleet_text
from hgpu.specs.serve import ServeSpec
from hgpu.specs.service import service_of
from hgpu.workloads.histogram import workload_from_trace
from hgpu.workloads.readers import read_trace
from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Trace

USERS = 20  # how many play the trace at once
STARTUP_S = 240.0
PROOF_REQUESTS = 40_000
STARTUPS_S = (120.0, 240.0, 480.0)
TARGETS = (1.0, 2.0)  # requests in flight an engine, as multiples of what the static plan predicts
SPEC = {
    "kind": "serve",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "workload": {"rate_rps": 50},
    "slo": {"tpot_ms": 80, "ttft_ms": 2000, "percentile": 99},
    "gpus": ["L4", "A10G", "A100-80GB", "H100-SXM"],
    "engine": {"max_num_batched_tokens": 2048, "max_num_seqs": 256, "max_model_len": 16384},
}


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a plan came to: the service with the headroom of its proof, its pools, and their engines."""

    demand: Demand
    pools: tuple[ControlledPool, ...]
    engines: tuple[int, ...]
    in_flight: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """hgpu's plan for what was, which its loop begins with, and the static fleet for what comes."""

    planned: Fleet
    static: Fleet

    @property
    def slo(self) -> Slo:
        """The objectives."""
        return self.planned.demand.service.tiers[0].slo


@dataclass(frozen=True, slots=True)
class Case:
    """One row of a table."""

    name: str
    kind: str
    startup_s: float = STARTUP_S
    target: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a case."""

    case: Case
    usd: float
    attained: dict[str, float]
    worst_hour: float
    rejected: int
    changes: int
    fewest: int
    most: int
    look_s: float


def setting_of(file: Path, history: Trace, busiest: Trace) -> Setting:
    """Plan for the history's lengths and rate, and a static fleet for the busiest hour of what comes.

    The plan is proved on Poisson arrivals, as the loop learns bursts by itself; the static fleet on the very
    requests that it is to serve.
    """
    spec = {**SPEC, "workload": {**SPEC["workload"], "trace": str(file)}}
    service = service_of(ServeSpec.model_validate(spec))
    found = select_latency(Path(mkdtemp()), service.model, service.points, (), only_estimates=True)
    models = {point: artifact.payload.latency for point, artifact in found.chosen.items()}
    demand = Demand(service, Candidates(models, found.refused, 0.9))
    known = workload_from_trace(history)
    poisson = poisson_trace(known, known.rate_rps, requests=PROOF_REQUESTS, seed=1)
    return Setting(
        proved("planned on history", demand, known, poisson),
        proved("static", demand, workload_from_trace(busiest), busiest),
    )


def proved(what: str, demand: Demand, workload: Workload, trace: Trace) -> Fleet:
    """Return the cheapest plan that holds on a trace."""
    there = replace(demand, service=replace(demand.service, workload=workload))
    prover = Prover([there], [trace], gap=1e-3, time_limit_s=5.0)
    (plan,) = prover.prove()
    say(what, plan, trace)
    rows = plan.allocation.pools
    predicted = plan.payload.predicted
    return Fleet(
        there.with_headroom(prover.headroom),
        tuple(ControlledPool(row.point.name, row.offer, row.point) for row in rows),
        tuple(row.engines for row in rows),
        tuple(row.concurrency for row in predicted),
    )


def say(what: str, plan: Planned, trace: Trace) -> None:
    proof = plan.payload.proof
    assert proof is not None and proof.held
    print(
        f"{what}: {fleet_text(plan.allocation)} at {plan.payload.cost_usd_per_hour:.2f} USD/h for "
        f"{trace.rate_rps:.1f} requests/s, headroom {proof.rounds[-1].headroom}, "
        f"attained {proof.rounds[-1].attained:.2%}",
        flush=True,
    )


def controller_of(setting: Setting, case: Case) -> tuple[Fleet, Controller, Orders]:
    """Return the fleet that a case begins with, and its controller."""
    fleet = setting.planned if case.kind == "loop" else setting.static
    first = first_orders(fleet.demand, fleet.pools, fleet.engines)
    if case.kind == "static":
        return fleet, Unchanging(first), first
    if case.kind == "reactive":
        scalers = [
            Scaler(max(1.0, case.target * each), pool.engines_per_machine, most=count)
            for pool, each, count in zip(fleet.pools, fleet.in_flight, first.machines, strict=True)
        ]
        return fleet, Reactive(scalers, first.routing), first
    loop = Loop(fleet.demand, fleet.pools, fleet.engines, Rules(startup_s=case.startup_s))
    return fleet, SimulatedLoop(loop, first.routing), first


class Timed:
    """A controller, and the seconds that each of its decisions took."""

    def __init__(self, controller: Controller) -> None:
        self.controller, self.interval_s = controller, controller.interval_s
        self.seconds = [0.0]

    def orders(self, seen: object) -> Orders:
        began_s = time.perf_counter()
        made = self.controller.orders(seen)  # type: ignore[arg-type]
        self.seconds.append(time.perf_counter() - began_s)
        return made


def played(setting: Setting, load: Callable[[], Trace], case: Case) -> Row:
    """Simulate a case."""
    fleet, controller, first = controller_of(setting, case)
    timed = Timed(controller)
    machines = elastic_pools(fleet.demand, fleet.pools)
    run = play(machines, load(), timed, first, case.startup_s)
    fleets = [sum(orders) for _, orders in run.orders]
    made = attainment(run.run.served, run.run.requests, setting.slo)
    return Row(
        case,
        run.usd,
        {row.name: row.share for row in made.objectives} | {"all": made.goodput_share},
        worst_hour(run, setting.slo),
        run.run.rejected,
        len(run.orders) - 1,
        min(fleets),
        max(fleets),
        median(timed.seconds),
    )


def worst_hour(run: ElasticRun, slo: Slo) -> float:
    """Return the least attainment of an objective in any hour."""
    hours = run.run.served.arrival_s // 3600
    return min(
        row.share
        for hour in np.unique(hours)
        for row in attainment(run.run.served.of(hours == hour), int((hours == hour).sum()), slo).objectives
    )


def day_of(file: Path) -> Trace:
    """Twenty users of the trace's second half, by day."""
    return by_day(streams(part(read_trace(file), 0.5, 1.0), USERS, DAY_S, seed=2))


def hour_of(file: Path) -> Trace:
    """The trace as it is, each request twenty times."""
    return in_step(read_trace(file), USERS, 30.0, seed=2)


def table(title: str, rows: Sequence[Row], static_usd: float) -> None:
    print(f"\n{title}\n")
    print("| controller | start-up s | USD | beside static | TTFT kept | TPOT kept | both | worst hour |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        kept = " | ".join(f"{row.attained[name]:.2%}" for name in ("ttft", "tpot", "all"))
        print(
            f"| {row.case.name} | {row.case.startup_s:g} | {row.usd:.2f} | {row.usd / static_usd - 1:+.1%} "
            f"| {kept} | {row.worst_hour:.2%} |"
        )
    for row in rows:
        print(
            f"{row.case.name} ({row.case.startup_s:g} s): {row.fewest} to {row.most} machines, {row.changes} "
            f"changes, {row.rejected} rejected, {row.look_s * 1e3:.0f} ms a look",
            file=sys.stderr,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("--hour", action="store_true", help="the trace's own hour instead of a day")
    options = parser.parse_args()
    load = Load(options.trace, options.hour)
    whole = load()
    print(f"{whole.requests} requests, {whole.rate_rps:.1f}/s: {whole.source}", flush=True)
    past = part(read_trace(options.trace), 0.0, 0.5)
    history = in_step(past, USERS, 30.0, seed=1) if options.hour else streams(past, USERS, 3600.0, seed=1)
    busiest = whole if options.hour else between(whole, *busiest_hour(whole))
    setting = setting_of(options.trace, history, busiest)
    cases = [Case("static", "static")]
    cases += [Case(f"threshold, target {target:g}×", "reactive", target=target) for target in TARGETS]
    cases += [Case("hgpu", "loop", startup_s) for startup_s in ((STARTUP_S,) if options.hour else STARTUPS_S)]
    with ProcessPoolExecutor(2, get_context("spawn")) as workers:
        futures = [workers.submit(played, setting, load, case) for case in cases]
        rows = []
        for future in futures:
            rows.append(future.result())
            print(rows[-1], file=sys.stderr, flush=True)
    table("hour" if options.hour else "day", rows, rows[0].usd)


@dataclass(frozen=True, slots=True)
class Load:
    """Makes the trace to replay, in the process that replays it."""

    file: Path
    hour: bool

    def __call__(self) -> Trace:
        """Return it."""
        return hour_of(self.file) if self.hour else day_of(self.file)


if __name__ == "__main__":
    main()
