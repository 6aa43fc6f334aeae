"""Why a plan is what it is: what binds, what that is worth, the runner-up, and where the choice changes.

Machine counts are whole, so dual prices of a relaxation mislead: a limit that binds may be worth
nothing until it is two higher. Each figure here is the difference between two exact plans.
"""

from collections.abc import Callable
from dataclasses import replace

from hgpu.artifacts.payloads.plan import Alternative, Explanation, Flip, ShadowPrice
from hgpu.core.allocation import Allocation
from hgpu.core.errors import Infeasible
from hgpu.core.operating_point import Mode
from hgpu.core.slo import Objective, Slo, Tier
from hgpu.solvers.allocation import all_resident, solve, with_columns
from hgpu.solvers.demand import Demand, problem_of
from hgpu.solvers.problem import Limit, Problem, Solution, Unit
from hgpu.solvers.rows import fleet_text

RATES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)  # of the planned one
STEPS = {"ttft": (0.1, "TTFT", "ms"), "tpot": (0.01, "TPOT", "ms"), "e2e": (1.0, "end-to-end", "ms")}
Fleet = tuple[float | None, str]  # USD/h and words; without a cost where there is none


def explain(demand: Demand, gap: float = 0.0) -> Explanation:
    """Return why the cheapest plan of a service is what it is. Raises Infeasible where there is none."""
    problem = replace(problem_of([demand]), gap=gap, budget_usd_per_hour=None)
    solution = solve(problem)
    cost = solution.allocation.usd_per_hour
    return Explanation(
        prices=[*_limits(problem, solution, cost), *_objectives(demand, gap, cost)],
        alternatives=_alternatives(problem, solution.allocation),
        flips=_flips(problem, demand.service.workload.rate_rps),
    )


def _limits(problem: Problem, solution: Solution, cost: float) -> list[ShadowPrice]:
    rows = []
    for number, limit in enumerate(problem.limits):
        step = 1 if limit.at_most is not None else -1
        name = limit.name.rpartition(":")[0] or limit.name
        change = _difference(_moved(problem, number, step), cost)
        rows.append(
            ShadowPrice(
                bound=limit.name,
                step=f"{name} {step:+d}",
                change_usd_per_hour=change,
                binding=bool(change) or _reached(limit, problem, solution.allocation),
            )
        )
    return rows


def _moved(problem: Problem, number: int, step: int) -> Problem:
    """The problem with one limit a step looser."""
    limit = problem.limits[number]
    if limit.at_most is not None:
        looser = replace(limit, at_most=limit.at_most + step)
    else:
        looser = replace(limit, at_least=(limit.at_least or 0) + step)
    return replace(problem, limits=(*problem.limits[:number], looser, *problem.limits[number + 1 :]))


def _reached(limit: Limit, problem: Problem, allocation: Allocation) -> bool:
    """Tell whether one more, or one fewer, would break the limit."""
    weights = {problem.columns[c].key: weight for c, weight in limit.weights.items()}
    if limit.unit is Unit.ENGINES:
        keys = {c.key: (c.offer, c.point, c.service) for c in problem.columns}
        counted = {(p.offer, p.point, p.service): p.engines for p in allocation.pools}
        total = sum(weight * counted.get(keys[key], 0) for key, weight in weights.items())
    else:
        by_offer = {problem.columns[c].offer: weight for c, weight in limit.weights.items()}
        total = sum(by_offer.get(rental.offer, 0.0) * rental.machines for rental in allocation.rentals)
    smallest = min(limit.weights.values(), default=1.0)
    if limit.at_most is not None:
        return total + smallest > limit.at_most + 1e-9
    return total - smallest < (limit.at_least or 0) - 1e-9


def _objectives(demand: Demand, gap: float, cost: float) -> list[ShadowPrice]:
    rows = []
    for tier in demand.service.tiers:
        for name, (step_s, label, unit) in STEPS.items():
            objective: Objective | None = getattr(tier.slo, name)
            if objective is None:
                continue
            for signed_s in (step_s, -min(step_s, objective.limit_s / 4)):
                changed = _difference(
                    _with_limit(demand, tier, name, objective.limit_s + signed_s, gap), cost
                )
                who = f"{tier.name} " if tier.name else ""
                rows.append(
                    ShadowPrice(
                        bound=f"{who}{label} ≤ {objective.limit_s * 1e3:g} {unit}",
                        step=f"{signed_s * 1e3:+g} {unit}",
                        change_usd_per_hour=changed,
                        binding=changed is None or abs(changed) > 1e-6,
                    )
                )
    return rows


def _with_limit(demand: Demand, tier: Tier, name: str, limit_s: float, gap: float) -> Callable[[], Problem]:
    """The problem with another limit of one objective; building it may raise Infeasible."""

    def build() -> Problem:
        objective: Objective = getattr(tier.slo, name)
        slo: Slo = replace(tier.slo, **{name: replace(objective, limit_s=limit_s)})
        tiers = tuple(replace(t, slo=slo) if t is tier else t for t in demand.service.tiers)
        other = Demand(replace(demand.service, tiers=tiers), demand.candidates, demand.key)
        return replace(problem_of([other]), gap=gap, budget_usd_per_hour=None)

    return build


def _alternatives(problem: Problem, allocation: Allocation) -> list[Alternative]:
    """The cheapest fleet without each GPU type of the plan, or its mode `offload`; the runner-up first."""
    rows = []
    if any(pool.point.mode is Mode.OFFLOAD for pool in allocation.pools):
        cost, fleet = _cheapest(all_resident(problem))
        rows.append(Alternative(without=f"mode {Mode.OFFLOAD}", fleet=fleet, cost_usd_per_hour=cost))
    for gpu in dict.fromkeys(pool.point.gpu for pool in allocation.pools):
        kept = [c for c, column in enumerate(problem.columns) if column.point.gpu != gpu]
        cost, fleet = _cheapest(with_columns(problem, kept))
        rows.append(Alternative(without=gpu, fleet=fleet, cost_usd_per_hour=cost))
    return sorted(rows, key=lambda row: (row.cost_usd_per_hour is None, row.cost_usd_per_hour or 0.0))


def _flips(problem: Problem, rate_rps: float) -> list[Flip]:
    rows = []
    for factor in RATES:
        scaled = replace(problem, rates_rps=tuple(rate * factor for rate in problem.rates_rps))
        cost, fleet = _cheapest(scaled)
        rows.append(Flip(rate_rps=rate_rps * factor, fleet=fleet, cost_usd_per_hour=cost))
    return rows


def _difference(problem: Problem | Callable[[], Problem], cost: float) -> float | None:
    try:
        built = problem if isinstance(problem, Problem) else problem()
        return solve(built).allocation.usd_per_hour - cost
    except Infeasible:
        return None


def _cheapest(problem: Problem) -> Fleet:
    try:
        allocation = solve(problem).allocation
    except Infeasible as error:
        return None, error.what
    return allocation.usd_per_hour, fleet_text(allocation)
