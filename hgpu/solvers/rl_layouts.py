"""The ways to share GPUs, each as rows of numbers that a search runs over.

Every layout has the same form: *heads* (choices of all components but one) and a *tail* (the choices of that
one), with T = (S + t)·w + β·max(m, t), w = 1/M, β = 1 − 1/M. A pipeline's heads have S = Σ t_i and m = max
t_i over M batches. A loop with training after it is the same with M = 1, S the seconds before and t those of
training. A layout that leaves no choice open has one tail without GPUs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import InputError
from hgpu.latency.rl import rollout_s, turns_s
from hgpu.solvers.rl_problem import Component, Floats, Loop, Problem
from hgpu.specs.rl import RlMode

Ints = NDArray[np.int64]
MOST_HEADS = 4_000_000


@dataclass(frozen=True, slots=True)
class Choice:
    """A component, or several that share GPUs, on so many GPUs of a pool, and the seconds that they take."""

    pool: int
    gpus: int
    seconds: float


NOTHING = Choice(0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Rows:
    """Heads and tails of one layout with one number of stages.

    `blocks` says which blocks of GPUs each component uses, by number: the head's first, then the tail's.
    `pool` and `gpus` have a row a head and a column a block of it; `sum_s` and `max_s` are S and m of each.
    """

    mode: RlMode
    layout: str
    stages: int
    overhead_s: float
    blocks: dict[str, tuple[int, ...]]
    pool: Ints
    gpus: Ints
    sum_s: Floats
    max_s: Floats
    tails: tuple[Choice, ...] = (NOTHING,)
    batches: int = 1


def layouts(problem: Problem) -> Iterator[Rows]:
    """Yield every layout of the allowed modes that has any rows."""
    for rows in _embodied(problem) if problem.loop.embodied else _pipeline(problem):
        if rows.mode in problem.modes and len(rows.sum_s) and rows.tails:
            yield rows


def choices(problem: Problem, component: Component, stages: int = 1) -> list[Choice]:
    """Return all that a component can run on, in the order of pools and GPUs."""
    found = []
    for number, pool in enumerate(problem.pools):
        for gpus in range(1, pool.gpus + 1):
            reading = problem.component_reading(component, pool.gpu, gpus, stages)
            if reading is not None:
                found.append(Choice(number, gpus, reading.seconds))
    return found


def useful(found: Sequence[Choice]) -> list[Choice]:
    """Return the choices without those that fewer GPUs of the same pool equal or beat."""
    kept: list[Choice] = []
    for choice in found:
        if not kept or kept[-1].pool != choice.pool or choice.seconds < kept[-1].seconds:
            kept.append(choice)
    return kept


def _pipeline(problem: Problem) -> Iterator[Rows]:
    loop = problem.loop
    found = {c.name: choices(problem, c) for c in problem.components}
    seconds = [{(c.pool, c.gpus): c.seconds for c in rows} for rows in found.values()]
    spots = [spot for spot in seconds[0] if all(spot in other for other in seconds)]
    shared = [((Choice(*spot, 0.0),), turns_s([rows[spot] for rows in seconds])) for spot in spots]
    blocks = _named([*found], *[(0,)] * len(found))
    yield _rows(RlMode.COLLOCATED, "all share", 1, loop.switch_s, blocks, shared)
    if len(found) > 1 and RlMode.DISAGGREGATED in problem.modes:
        yield _apart(problem, {name: useful(rows) for name, rows in found.items()})


def _apart(problem: Problem, found: dict[str, list[Choice]]) -> Rows:
    """Return a pipeline with GPUs of its own for each component; that with the most choices is the tail."""
    *first, last = sorted(found, key=lambda name: len(found[name]))
    count = math.prod(len(found[name]) for name in first)
    if count > MOST_HEADS:
        raise InputError(
            f"there are {count:,} ways to place {', '.join(first)}",
            f"the exact search holds {MOST_HEADS:,} in memory",
            "give components a model_parallel or divides, or name fewer pools",
        )
    grids = np.meshgrid(*(np.arange(len(found[name])) for name in first), indexing="ij")
    index = [grid.ravel() for grid in grids]

    def column(of: Callable[[Choice], float], dtype: type) -> NDArray[Any]:
        values: list[NDArray[Any]] = [np.array([of(c) for c in found[name]], dtype=dtype) for name in first]
        return np.stack([row[i] for row, i in zip(values, index, strict=True)], axis=1)

    seconds = column(lambda choice: choice.seconds, float)
    return Rows(
        RlMode.DISAGGREGATED,
        "each on its own",
        1,
        problem.loop.sync_s,
        {name: (number,) for number, name in enumerate([*first, last])},
        column(lambda choice: choice.pool, int),
        column(lambda choice: choice.gpus, int),
        seconds.sum(axis=1),
        seconds.max(axis=1),
        tuple(found[last]),
        problem.loop.batches,
    )


def _embodied(problem: Problem) -> Iterator[Rows]:
    env, policy, actor = problem.components
    loop = problem.loop
    found = choices(problem, actor)
    trained = {(c.pool, c.gpus): c.seconds for c in found}
    alone = tuple(useful(found))
    both = _both(problem)
    names = (env.name, policy.name, actor.name)
    shared = [
        (spot, s + trained[spot[0].pool, spot[0].gpus]) for spot, s in both if _spot(spot, (0,)) in trained
    ]
    yield _rows(RlMode.COLLOCATED, "all share", 1, loop.switch_s, _named(names, (0,), (0,), (0,)), shared)
    blocks = _named(names, (0,), (0,), (1,))
    yield _rows(RlMode.HYBRID, "simulator and policy share", 1, loop.sync_s, blocks, both, alone)
    for stages in loop.stages:
        pairs = _pairs(problem, stages)
        blocks = _named(names, (0,), (1,), (2,))
        yield _rows(RlMode.DISAGGREGATED, "each on its own", stages, loop.sync_s, blocks, pairs, alone)
        for layout, used, overhead_s in _shared_training(loop):
            fitting = [
                (pair, s + trained[spot]) for pair, s in pairs if (spot := _spot(pair, used)) in trained
            ]
            blocks = _named(names, (0,), (1,), used)
            yield _rows(RlMode.HYBRID, layout, stages, overhead_s, blocks, fitting)


def _shared_training(loop: Loop) -> list[tuple[str, tuple[int, ...], float]]:
    """Return the ways of training to share GPUs with simulator (block 0) and policy (block 1)."""
    return [
        ("training on all", (0, 1), loop.switch_s),
        ("training with the policy", (1,), loop.switch_s),
        ("training with the simulator", (0,), loop.switch_s + loop.sync_s),
    ]


def _named(names: Sequence[str], *blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return dict(zip(names, blocks, strict=True))


def _spot(blocks: Sequence[Choice], used: tuple[int, ...]) -> tuple[int, int]:
    """Return pool and GPUs of some blocks together; no pool (-1) where they are of several."""
    pools = {blocks[number].pool for number in used}
    return (pools.pop() if len(pools) == 1 else -1, sum(blocks[number].gpus for number in used))


def _both(problem: Problem) -> list[tuple[tuple[Choice, ...], float]]:
    """Return simulator and policy on the same GPUs, taking turns: H·(e(E/N) + g(E/N))."""
    env, policy, _ = problem.components
    acting = {(c.pool, c.gpus): c.seconds for c in choices(problem, policy)}
    return [
        ((c,), rollout_s(c.seconds, acting[c.pool, c.gpus], problem.loop.steps))
        for c in choices(problem, env)
        if (c.pool, c.gpus) in acting
    ]


def _pairs(problem: Problem, stages: int) -> list[tuple[tuple[Choice, ...], float]]:
    """Return simulator and policy on GPUs of their own, with the seconds of all steps."""
    env, policy, _ = problem.components
    return [
        ((e, p), rollout_s(e.seconds, p.seconds, problem.loop.steps, stages))
        for e, p in product(choices(problem, env, stages), choices(problem, policy, stages))
        if e.pool != p.pool or e.gpus + p.gpus <= problem.pools[e.pool].gpus
    ]


def _rows(
    mode: RlMode,
    layout: str,
    stages: int,
    overhead_s: float,
    blocks: dict[str, tuple[int, ...]],
    heads: Sequence[tuple[tuple[Choice, ...], float]],
    tails: tuple[Choice, ...] = (NOTHING,),
) -> Rows:
    """Return heads, each of some blocks with the seconds that they take before the tail."""
    pool = np.array([[c.pool for c in head] for head, _ in heads], dtype=np.int64)
    gpus = np.array([[c.gpus for c in head] for head, _ in heads], dtype=np.int64)
    sum_s = np.array([seconds for _, seconds in heads])
    return Rows(mode, layout, stages, overhead_s, blocks, pool, gpus, sum_s, np.zeros(len(heads)), tails)
