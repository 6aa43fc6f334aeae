"""Which GPUs of its pool each component gets: contiguous, training first, then generation, then the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hgpu.solvers.rl_problem import Part, Placement, Problem
from hgpu.specs.rl import Pay, RlMode

# RLinf's automatic scheduler takes this order only, and refuses the one that its own placement tool prints.
ORDER = ("actor", "rollout", "inference", "reward", "critic", "env")


def ranks(problem: Problem, placement: Placement) -> dict[str, tuple[int, int]]:
    """Return the first and last GPU of each component in its pool.

    Components that share all their GPUs have the same; training on several blocks spans them, as they are
    neighbours. Where the usual order would split a process over two nodes, those with more GPUs a process
    come first: whole processes then fill whole nodes, as long as one divides the other.
    """
    wide = {component.name: component.model_parallel for component in problem.components}
    names = sorted((part.component for part in placement.parts), key=ORDER.index)
    usual = _in_order(placement, names)
    if _whole(problem, placement, usual):
        return usual
    widest = {number: max(wide[p.component] for p in placement.parts if number in p.blocks)
              for part in placement.parts for number in part.blocks}  # fmt: skip
    blocks = {part.component: part.blocks for part in placement.parts}
    return _in_order(placement, sorted(names, key=lambda name: -widest[blocks[name][0]]))


def _in_order(placement: Placement, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the GPUs of components, given out in the order of their names."""
    parts = {part.component: part for part in placement.parts}
    blocks: dict[int, tuple[int, int]] = {}
    free = [0] * len(placement.used)
    for part in sorted((parts[name] for name in names), key=lambda part: len(part.blocks)):
        if len(part.blocks) == 1 and part.blocks[0] not in blocks:
            first = free[part.pool]
            free[part.pool] += part.gpus
            blocks[part.blocks[0]] = (first, first + part.gpus - 1)
    return {name: _span(part, blocks) for name, part in parts.items()}


def _whole(problem: Problem, placement: Placement, where: Mapping[str, tuple[int, int]]) -> bool:
    """Tell whether each process has its GPUs on one node."""
    for component, part in zip(problem.components, placement.parts, strict=True):
        node = problem.pools[part.pool].gpus_per_node
        first, last = where[component.name]
        for start in range(first, last + 1, component.model_parallel):
            if start // node != (start + component.model_parallel - 1) // node:
                return False
    return True


def _span(part: Part, blocks: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
    ends = [blocks[number] for number in part.blocks]
    return min(first for first, _ in ends), max(last for _, last in ends)


def spread(problem: Problem, placement: Placement) -> Placement:
    """Give GPUs that are paid for but idle to components that they don't slow down, in the order of data.

    Only of a pipeline on GPUs of its own, in pools that are paid whole: RLinf's placement tool uses all GPUs
    of its cluster too.
    """
    if problem.loop.embodied or placement.mode is not RlMode.DISAGGREGATED:
        return placement
    idle = [
        pool.gpus - used if pool.pay is Pay.POOL else 0
        for pool, used in zip(problem.pools, placement.used, strict=True)
    ]
    parts = []
    for component, part in zip(problem.components, placement.parts, strict=True):
        for gpus in range(part.gpus + idle[part.pool], part.gpus, -1):
            reading = problem.component_reading(component, problem.pools[part.pool].gpu, gpus)
            if reading is not None and reading.seconds <= part.reading.seconds:
                idle[part.pool] -= gpus - part.gpus
                part = replace(part, gpus=gpus, reading=reading)
                break
        parts.append(part)
    used = [0] * len(problem.pools)
    for part in parts:
        used[part.pool] += part.gpus
    return replace(placement, parts=tuple(parts), used=tuple(used))
