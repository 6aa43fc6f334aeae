"""From a spec of `kind: rl` to the payload that is kept: the placement, what else could be, what binds."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hgpu.artifacts.payloads.placement import (
    Alternative,
    Binding,
    PlacedComponent,
    PlacedPool,
    PlacementPayload,
)
from hgpu.core.errors import Infeasible
from hgpu.latency.rl import SOURCES
from hgpu.solvers.rl_placement import place
from hgpu.solvers.rl_problem import Limits, Placement, Pool, Problem
from hgpu.solvers.rl_ranks import ranks, spread
from hgpu.solvers.rl_read import Read, read_problem
from hgpu.solvers.rl_why import bindings, missing, require_profiles
from hgpu.specs.rl import RlMode, RlSpec


@dataclass(frozen=True, slots=True)
class PlannedLoop:
    """The payload, what it was read from, and how long the solver took."""

    payload: PlacementPayload
    read: Read
    timings: dict[str, float]


def plan_loop(spec: RlSpec) -> PlannedLoop:
    """Return the best placement of a loop.

    Raises InputError for a spec that can't be used, and Infeasible, with what would have to give, where no
    placement keeps its deadline and budget.
    """
    read = read_problem(spec)
    problem = read.problem
    require_profiles(problem)
    start = time.perf_counter()
    found = place(problem)
    solve_s = time.perf_counter() - start
    if not found:
        raise _infeasible(problem, spec)
    best = spread(problem, found[0])
    payload = _payload(spec, problem, best, found)
    return PlannedLoop(payload, read, {"solve_s": solve_s, "total_s": time.perf_counter() - start})


def _payload(spec: RlSpec, problem: Problem, best: Placement, found: Sequence[Placement]) -> PlacementPayload:
    loop = problem.loop
    return PlacementPayload(
        name=spec.name,
        workflow=spec.workflow,
        objective=spec.objective,
        mode=best.mode,
        layout=best.layout,
        stages=best.stages,
        model=SOURCES[spec.workflow],
        provenance=best.provenance,
        iteration_s=best.iteration_s,
        usd_per_hour=best.usd_per_hour,
        usd_per_iteration=best.usd_per_iteration,
        iterations=spec.iterations,
        deadline_s=None if spec.deadline_h is None else spec.deadline_h * 3600,
        budget_usd=spec.budget_usd,
        batches=spec.batches,
        steps=spec.steps,
        envs=spec.envs,
        group_size=spec.group_size,
        switch_s=loop.switch_s,
        sync_s=loop.sync_s,
        components=_components(problem, best),
        pools=[_pool(pool, used) for pool, used in zip(problem.pools, best.used, strict=True)],
        alternatives=[
            *(_alternative(problem, placement) for placement in (best, *found[1:])),
            *_modes_without(problem, found),
        ],
        binding=[Binding(what=row.what, iteration_s=row.iteration_s, usd_per_iteration=row.usd)
                 for row in bindings(problem, best)],
        missing=missing(problem),
    )  # fmt: skip


def _components(problem: Problem, best: Placement) -> list[PlacedComponent]:
    where = ranks(problem, best)
    rows = []
    for component, part in zip(problem.components, best.parts, strict=True):
        first, last = where[component.name]
        of_steps = problem.loop.embodied and component is not problem.components[-1]
        rows.append(
            PlacedComponent(
                name=component.name,
                gpu=problem.pools[part.pool].gpu,
                first_gpu=first,
                last_gpu=last,
                model_parallel=component.model_parallel,
                seconds=part.reading.seconds,
                provenance=part.reading.provenance,
                envs_per_process=problem.stage_envs(component, part.gpus, best.stages) if of_steps else None,
                source=component.source,
            )
        )
    return rows


def _pool(pool: Pool, used: int) -> PlacedPool:
    return PlacedPool(
        gpu=pool.gpu,
        gpus=pool.gpus,
        used=used,
        gpus_per_node=pool.gpus_per_node,
        paid_gpus=pool.paid_gpus(used),
        usd_per_gpu_hour=pool.usd_per_gpu_hour,
        usd_per_hour=pool.usd_per_hour(used),
        pay=pool.pay,
        source=pool.source,
        offer=pool.offer.name if pool.offer else "",
        region=pool.offer.region if pool.offer else "",
        market=pool.offer.market if pool.offer else "",
    )


def _alternative(problem: Problem, placement: Placement) -> Alternative:
    where = ranks(problem, placement)
    names = []
    for part in placement.parts:
        first, last = where[part.component]
        gpu = f"{problem.pools[part.pool].gpu}:" if len(problem.pools) > 1 else ""
        names.append(f"{part.component} {gpu}{first}-{last}")
    return Alternative(
        mode=placement.mode,
        layout=placement.layout,
        stages=placement.stages,
        iteration_s=placement.iteration_s,
        usd_per_iteration=placement.usd_per_iteration,
        gpus=sum(placement.used),
        where=", ".join(names),
        provenance=placement.provenance,
    )


def _modes_without(problem: Problem, found: Sequence[Placement]) -> Iterator[Alternative]:
    """Yield a row for each allowed mode that has no placement, with the reason."""
    modes = [mode for mode in problem.modes if mode not in {placement.mode for placement in found}]
    for mode in modes:
        free = place(replace(problem, modes=(mode,), by_time=True, limits=Limits()))
        if free:
            reason = f"within the limits there is none; the fastest takes {free[0].iteration_s:.4g} s"
        elif mode is RlMode.HYBRID and not problem.loop.embodied:
            reason = "RLinf's pipelines share all GPUs or none"
        else:
            reason = "no measured counts of all components fit the pools"
        yield Alternative(mode=mode, reason=reason)


def _infeasible(problem: Problem, spec: RlSpec) -> Infeasible:
    """Return why nothing fits: no layout at all, or limits that the fastest and the cheapest break."""
    free = replace(problem, limits=Limits())
    fastest = place(replace(free, by_time=True))
    if not fastest:
        modes = ", ".join(problem.modes)
        return Infeasible(
            "no placement of all components fits the pools",
            f"in mode {modes}, with the counts that were measured",
            "allow other modes, larger pools, or measure more counts",
        )
    limits = problem.limits
    iterations = spec.iterations or 1
    if fastest[0].iteration_s > limits.iteration_s:
        hours = fastest[0].iteration_s * iterations / 3600
        return Infeasible(
            f"the deadline of {spec.deadline_h:g} h can't be kept",
            f"the fastest placement takes {fastest[0].iteration_s:.4g} s an iteration, {hours:.4g} h in all",
            f"allow {_up(hours):g} h, or give more GPUs",
        )
    cheapest = place(replace(free, by_time=False, limits=Limits(iteration_s=limits.iteration_s)))
    usd = cheapest[0].usd_per_iteration * iterations
    return Infeasible(
        f"the budget of {spec.budget_usd:g} USD doesn't suffice",
        f"the cheapest placement{' within the deadline' if spec.deadline_h else ''} costs {usd:.4g} USD",
        f"allow {_up(usd):g} USD, or more time",
    )


def _up(value: float) -> float:
    """Round up to three digits, so that what is advised suffices."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step) * step
