"""What holds a placement back: the busiest component, full pools, limits; and what was never measured."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hgpu.core.errors import InputError
from hgpu.latency.rl_profile import Profile
from hgpu.solvers.rl_placement import place
from hgpu.solvers.rl_problem import Component, Limits, Placement, Problem
from hgpu.specs.rl import RlMode


@dataclass(frozen=True, slots=True)
class Bind:
    """What binds, and the best answer without it."""

    what: str
    iteration_s: float | None = None
    usd: float | None = None


def bindings(problem: Problem, best: Placement) -> list[Bind]:
    """Return what binds: the slowest component, then limits and full pools with the answer without each."""
    rows = [_slowest(problem, best)]
    limits = problem.limits
    for what, without in (
        ("the deadline", Limits(iteration_usd=limits.iteration_usd)),
        ("the budget", Limits(iteration_s=limits.iteration_s)),
    ):
        if without != limits:
            rows += _without(f"{what} binds", replace(problem, limits=without), problem, best)
    for number, (pool, used) in enumerate(zip(problem.pools, best.used, strict=True)):
        if used + pool.gpus_per_node > pool.gpus:
            larger = replace(pool, gpus=pool.gpus + pool.gpus_per_node)
            pools = (*problem.pools[:number], larger, *problem.pools[number + 1 :])
            what = f"the pool of {pool.gpu} is used up: one node more"
            rows += _without(what, replace(problem, pools=pools), problem, best)
    return rows


def _without(what: str, relaxed: Problem, problem: Problem, best: Placement) -> Iterator[Bind]:
    found = place(relaxed)
    if found and _wanted(problem, found[0]) < _wanted(problem, best) * (1 - 1e-6):
        yield Bind(what, found[0].iteration_s, found[0].usd_per_iteration)


def _wanted(problem: Problem, placement: Placement) -> float:
    return placement.iteration_s if problem.by_time else placement.usd_per_iteration


def _slowest(problem: Problem, best: Placement) -> Bind:
    """Say which component the others wait for, or which takes the most where all take turns."""
    loop = problem.loop
    times = {part.component: part.reading.seconds for part in best.parts}
    if loop.embodied:
        for component in problem.components[:-1]:
            times[component.name] *= loop.steps * best.stages
    slowest = max(times, key=lambda name: times[name])
    others = ", ".join(f"{name} {seconds:.4g} s" for name, seconds in times.items() if name != slowest)
    waited = "" if best.mode is RlMode.COLLOCATED or loop.embodied else ", and the others wait for it"
    return Bind(f"{slowest} works longest, {times[slowest]:.4g} s an iteration{waited}; {others}")


def require_profiles(problem: Problem) -> None:
    """Raise InputError where a component has no profile on any pool."""
    gpus = {pool.gpu for pool in problem.pools}
    for component in problem.components:
        if not gpus & set(component.curves):
            raise InputError(
                f"component '{component.name}' has no profile on a GPU type of the pools",
                f"it has one on {', '.join(component.curves)}; the pools are of {', '.join(sorted(gpus))}",
                "measure it there, or add a pool",
            )


def missing(problem: Problem) -> list[str]:
    """Return what wasn't considered, as nothing was measured there: GPU types, counts outside a profile."""
    texts = (
        _missing(problem, component, pool.gpu, pool.gpus)
        for component in problem.components
        for pool in problem.pools
    )
    return [text for text in texts if text]


def _missing(problem: Problem, component: Component, gpu: str, gpus: int) -> str:
    curve = component.curves.get(gpu)
    if curve is None:
        return f"{component.name} on {gpu}: no profile"
    if not isinstance(curve, Profile):
        return f"{component.name} on {gpu}: more than {curve.gpus} GPUs" if gpus > curve.gpus else ""
    if problem.loop.embodied and component is not problem.components[-1]:
        asked = {
            envs
            for stages in problem.loop.stages
            for n in range(1, gpus + 1)
            if (envs := problem.stage_envs(component, n, stages)) is not None
        }
        outside = sorted(x for x in asked if not curve.lowest <= x <= curve.highest)
        return f"{component.name} on {gpu}: {_listed(outside, 'environments a process')}" if outside else ""
    counts = [n for n in range(1, gpus + 1) if component.processes(n) is not None]
    outside = [n for n in counts if not curve.lowest <= n <= curve.highest]
    return f"{component.name} on {gpu}: {_listed(outside, 'GPUs')}" if outside else ""


def _listed(numbers: list[int], unit: str) -> str:
    if len(numbers) <= 4:
        return f"{', '.join(map(str, numbers))} {unit}"
    return f"those of {numbers[0]} to {numbers[-1]} {unit} that are outside its profile"
