"""Plans that a simulation of their fleet agrees with.

The closed forms behind a plan know Poisson arrivals and mean lengths; a trace has bursts, and a pool
mixes buckets. So the plan's fleet is replayed, with steps as slow as the plan's confidence asks for. Where
an objective is missed, the pools that miss it get headroom: their engines count for less, and the plan is
made again. When it holds, headroom is taken back towards the last plan that didn't, as long as the
simulation still agrees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hgpu.artifacts.payloads.plan import Proof, ProofRound
from hgpu.core.errors import Infeasible
from hgpu.core.operating_point import OperatingPoint, names_of
from hgpu.latency.confidence import slower
from hgpu.simulator.balance import DEFAULT_BALANCER
from hgpu.simulator.fleet import Fleet, FleetRun, replay
from hgpu.simulator.proof import Promise, attainments, fleet_of, promise_of
from hgpu.solvers.demand import Change, Demand
from hgpu.solvers.plan import Planned, make_plans
from hgpu.solvers.rows import fleet_text
from hgpu.workloads.trace import Trace

ROUNDS = 30
MOST_HEADROOM = 64.0
GROWTH = (
    (0.01, 1.05),
    (0.05, 1.15),
    (0.2, 1.4),
    (1.0, 1.8),
)  # missed by up to this part: headroom times that
FINEST = 1.03  # headroom isn't halved between closer plans
Headroom = Mapping[OperatingPoint, float]


@dataclass(frozen=True, slots=True)
class Trial:
    """Plans with some headroom, and what the simulation said of each."""

    headroom: Headroom
    plans: tuple[Planned, ...]
    runs: tuple[FleetRun, ...]
    rounds: tuple[ProofRound, ...]

    @property
    def held(self) -> bool:
        """Tell whether every objective of every service was met."""
        return all(round_.attained >= round_.target - 1e-9 for round_ in self.rounds)

    @property
    def usd_per_hour(self) -> float:
        """Cost of all services together."""
        return sum(plan.payload.cost_usd_per_hour for plan in self.plans)


@dataclass(slots=True)
class Prover:
    """Makes and simulates plans; `arrivals` are those of each service, at its rate."""

    demands: Sequence[Demand]
    arrivals: Sequence[Trace]
    gap: float = 0.0
    time_limit_s: float = 60.0
    change: Change | None = None
    balance: str = DEFAULT_BALANCER
    seed: int = 0
    headroom: Headroom = field(default_factory=dict)
    played: dict[Any, FleetRun] = field(default_factory=dict)

    def prove(self) -> list[Planned]:
        """Return the cheapest plans that hold, or the best that were found, with the proof in each.

        `headroom` is what these plans have.

        Raises Infeasible where there is no plan at all, headroom or not.
        """
        trials = [self._trial({})]
        while not trials[-1].held and len(trials) < ROUNDS:
            more = _more(trials[-1])
            if more is None or max(more.values()) > MOST_HEADROOM:
                break
            try:
                trials.append(self._trial(more))
            except Infeasible:
                break  # the limits allow no such fleet: what was found stands, unproved
        if trials[-1].held and len(trials) > 1:
            trials += self._tightened(trials[-2], trials[-1])
        best = _best(trials)
        self.headroom = best.headroom
        return _with_proof(trials, best, self.arrivals)

    def _tightened(self, missed: Trial, held: Trial) -> list[Trial]:
        """Go back half of the way to the plan that missed, again and again."""
        tried = []
        while any(h / missed.headroom.get(point, 1.0) > FINEST for point, h in held.headroom.items()):
            middle = {p: (h * missed.headroom.get(p, 1.0)) ** 0.5 for p, h in held.headroom.items()}
            trial = self._trial(middle)
            tried.append(trial)
            if trial.held:
                held = trial
            else:
                missed = trial
        return tried

    def _trial(self, headroom: Headroom) -> Trial:
        demands = [demand.with_headroom(headroom) for demand in self.demands]
        plans = make_plans(demands, self.gap, self.time_limit_s, self.change)
        runs, rounds = [], []
        for number, (demand, plan) in enumerate(zip(demands, plans, strict=True)):
            run = self._run(number, demand, plan)
            runs.append(run)
            rounds.append(_round(promise_of(plan.payload), plan, run, self._named(headroom)))
        return Trial(headroom, tuple(plans), tuple(runs), tuple(rounds))

    def _named(self, headroom: Headroom) -> dict[str, float]:
        """Return headroom by the names of points, which tell all candidates apart."""
        names = names_of(point for demand in self.demands for point in demand.candidates.latency)
        return {names[point]: factor for point, factor in headroom.items()}

    def _run(self, number: int, demand: Demand, plan: Planned) -> FleetRun:
        """Simulate a plan; one that differs from an earlier one by its headroom alone isn't played again."""
        key = (
            number,
            plan.allocation.shares,
            tuple((p.offer, p.point, p.engines) for p in plan.allocation.pools),
        )
        if key not in self.played:
            fleet = self._fleet(demand, plan)
            self.played[key] = replay(fleet, self.arrivals[number], self.balance, self.seed)
        return self.played[key]

    def _fleet(self, demand: Demand, plan: Planned) -> Fleet:
        candidates = demand.candidates
        models = {p: slower(model, candidates.factor(p)) for p, model in candidates.latency.items()}
        return fleet_of(plan.payload, models)


def _round(promise: Promise, plan: Planned, run: FleetRun, headroom: dict[str, float]) -> ProofRound:
    """The objective that fell short most, or came closest to it."""
    rows = [row for made in attainments(promise, run) for row in made.objectives]
    worst = min(rows, key=lambda row: row.share - row.objective.percentile / 100)
    return ProofRound(
        cost_usd_per_hour=plan.payload.cost_usd_per_hour,
        fleet=fleet_text(plan.allocation),
        attained=worst.share,
        target=worst.objective.percentile / 100,
        headroom=headroom,
    )


def _more(trial: Trial) -> dict[OperatingPoint, float] | None:
    """More headroom for the points whose requests miss an objective; None where none of them does."""
    more = dict(trial.headroom)
    grew = False
    for plan, run in zip(trial.plans, trial.runs, strict=True):
        promise = promise_of(plan.payload)
        if all(made.met for made in attainments(promise, run)):
            continue
        for number, row in enumerate(plan.payload.allocation):
            missed = max(
                (
                    objective.objective.percentile / 100 - objective.share
                    for made in attainments(promise, run, number)
                    for objective in made.objectives
                ),
                default=0.0,
            )
            if missed > 1e-9:
                growth = next(factor for most, factor in GROWTH if missed <= most)
                more[row.point] = max(more.get(row.point, 1.0), trial.headroom.get(row.point, 1.0) * growth)
                grew = True
    return more if grew else None


def _best(trials: Sequence[Trial]) -> Trial:
    """The cheapest trial that held, else the one that came closest."""
    held = [trial for trial in trials if trial.held]
    if held:
        return min(held, key=lambda trial: trial.usd_per_hour)
    return max(trials, key=lambda trial: min(row.attained - row.target for row in trial.rounds))


def _with_proof(trials: Sequence[Trial], best: Trial, arrivals: Sequence[Trace]) -> list[Planned]:
    """The plans of a trial, with all that were tried, itself last."""
    order = [*(trial for trial in trials if trial is not best), best]
    plans = []
    for number, (plan, trace) in enumerate(zip(best.plans, arrivals, strict=True)):
        proof = Proof(
            held=best.held,
            trace=trace.source,
            requests=trace.requests,
            rounds=[trial.rounds[number] for trial in order],
        )
        plans.append(replace(plan, payload=plan.payload.model_copy(update={"proof": proof})))
    return plans
