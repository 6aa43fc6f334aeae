import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solvers.rl_brute import Small, Tried, loops, pipelines

from hgpu.latency.rl_profile import Curve, GenerationLaw, TrainingLaw, profile_of
from hgpu.solvers.rl_placement import place
from hgpu.solvers.rl_problem import Component, Limits, Loop, Placement, Pool, Problem
from hgpu.solvers.rl_ranks import ranks, spread
from hgpu.specs.rl import Pay, RlMode

REASONING = (
    Component("rollout", {"H100-SXM": GenerationLaw(128, 224, 1, 8192, 128)}),
    Component("inference", {"H100-SXM": TrainingLaw(128, 10)}, 2, 128),
    Component("actor", {"H100-SXM": TrainingLaw(128, 101)}, 2, 128),
)
LIBERO = (
    Component("env", {"H100-SXM": profile_of({4: 0.61, 8: 1.23, 16: 2.46, 32: 4.66, 64: 18.5})}),
    Component("rollout", {"H100-SXM": profile_of({4: 0.6, 8: 1.01, 16: 2.12, 32: 3.72, 64: 15.3})}),
    Component("actor", {"H100-SXM": profile_of({1: 1e-9, 4: 1e-9})}),
)


def gpus_of(placement: Placement) -> dict[str, int]:
    return {part.component: part.gpus for part in placement.parts}


def test_rlinfs_example_is_placed_on_80_32_and_16_of_its_128_gpus() -> None:
    problem = Problem(
        REASONING, (Pool("H100-SXM", 128, 8, 2.0, Pay.POOL),), Loop(False, batches=512), by_time=True
    )
    best, other = place(problem)
    spread_out = spread(problem, best)
    assert best.mode is RlMode.DISAGGREGATED and best.iteration_s == pytest.approx(289.0957, abs=5e-5)
    assert gpus_of(spread_out) == {"rollout": 80, "inference": 16, "actor": 32}
    assert gpus_of(best)["rollout"] == 71  # takes no longer: more engines wait for the longest answers too
    assert other.mode is RlMode.COLLOCATED and other.iteration_s == 335
    assert ranks(problem, spread_out) == {"actor": (0, 31), "rollout": (32, 111), "inference": (112, 127)}


def test_the_libero_table_is_collocated_where_rlinfs_tool_once_split_it() -> None:
    loop = Loop(True, envs=64, stages=(1, 2))
    best, *others = place(Problem(LIBERO, (Pool("H100-SXM", 4, 4, 2.0),), loop, by_time=True))
    assert best.mode is RlMode.COLLOCATED and best.iteration_s == pytest.approx(4.58)
    split = next(row for row in others if row.layout == "training on all" and row.stages == 1)
    assert gpus_of(split) == {"env": 2, "rollout": 2, "actor": 4}
    assert split.iteration_s == pytest.approx(8.38)


@st.composite
def problems(draw: st.DrawFn, embodied: bool) -> Problem:
    """Loops on 16 GPUs, with whatever a search may trip over: profiles that rise, gaps, nodes, limits."""
    gpus = draw(st.sampled_from([["L4"], ["L4", "H100-SXM"], ["L4", "A10G", "L40S", "H100-SXM"]]))
    names = ["env", "rollout", "actor"] if embodied else draw(
        st.sampled_from([["rollout", "actor"], ["rollout", "inference", "actor"]])
    )  # fmt: skip
    seconds = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 8.0, 16.0])

    def curve() -> Curve:
        if not embodied and draw(st.booleans()):
            return TrainingLaw(draw(st.integers(1, 12)), draw(seconds))
        ends = {draw(st.sampled_from([1, 1, 1, 3])): draw(seconds), draw(st.integers(4, 16)): draw(seconds)}
        return profile_of(ends | draw(st.dictionaries(st.integers(1, 16), seconds, max_size=3)))

    components = tuple(
        Component(
            name,
            {gpu: curve() for gpu in gpus if draw(st.integers(0, 3)) or gpu == "L4"},
            draw(st.sampled_from([1, 1, 2])) if name != "env" else 1,
            0 if embodied else draw(st.sampled_from([0, 0, 12])),
        )
        for name in names
    )
    pools = tuple(
        Pool(
            gpu,
            draw(st.integers(1, 16 // len(gpus))),
            draw(st.sampled_from([1, 2, 4])),
            draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
            draw(st.sampled_from(list(Pay))),
        )
        for gpu in gpus
    )
    loop = Loop(
        embodied,
        draw(st.integers(1, 8)),
        draw(st.integers(1, 5)),
        draw(st.sampled_from([4, 12, 16])),
        draw(st.sampled_from([1, 1, 2])),
        (1, 2, 4) if draw(st.booleans()) else (2,),
        draw(st.sampled_from([0.0, 2.0])),
        draw(st.sampled_from([0.0, 1.0])),
    )
    modes = draw(
        st.sampled_from([tuple(RlMode), (RlMode.DISAGGREGATED,), (RlMode.HYBRID, RlMode.COLLOCATED)])
    )
    limits = Limits(draw(st.sampled_from([math.inf, 10.0, 30.0])), draw(st.sampled_from([math.inf, 0.03])))
    return Problem(components, pools, loop, modes, draw(st.booleans()), limits)


def brute_force(problem: Problem) -> list[Tried]:
    components = {component.name: component for component in problem.components}
    loop = problem.loop

    def seconds(name: str, gpu: str, gpus: int, stages: int) -> float | None:
        component = components[name]
        processes, rest = divmod(gpus, component.model_parallel)
        x = gpus
        if gpu not in component.curves or rest:
            return None
        if loop.embodied and name != "actor":
            x, rest = divmod(loop.envs, processes * stages)
            if rest or (name == "env" and x % loop.group_size):
                return None
        elif component.divides % processes:
            return None
        reading = component.curves[gpu].at(x)
        return None if reading is None else reading.seconds

    small = Small(
        [(pool.gpu, pool.gpus) for pool in problem.pools],
        seconds,
        loop.switch_s,
        loop.sync_s,
        {str(mode) for mode in problem.modes},
    )
    if loop.embodied:
        return list(loops(small, loop.steps, list(loop.stages)))
    return list(pipelines(small, list(components), loop.batches))


def paid_usd(problem: Problem, tried: Tried) -> float:
    rate = 0.0
    for pool, used in zip(problem.pools, tried.used, strict=True):
        nodes = -(-used // pool.gpus_per_node)
        paid = {Pay.POOL: pool.gpus, Pay.GPUS: used, Pay.NODES: nodes * pool.gpus_per_node}[pool.pay]
        rate += paid * pool.usd_per_gpu_hour
    return rate * tried.iteration_s / 3600


def check_against_brute_force(problem: Problem) -> None:
    found = place(problem)
    tried = [(row.iteration_s, paid_usd(problem, row)) for row in brute_force(problem)]
    limits = problem.limits
    able = [
        row[:: 1 if problem.by_time else -1]
        for row in tried
        if row[0] <= limits.iteration_s * (1 + 1e-9) and row[1] <= limits.iteration_usd * (1 + 1e-9)
    ]
    assert bool(found) == bool(able)
    if found:
        best = (found[0].iteration_s, found[0].usd_per_iteration)[:: 1 if problem.by_time else -1]
        first = min(row[0] for row in able)
        second = min(row[1] for row in able if row[0] <= first * (1 + 1e-9))
        assert best == pytest.approx((first, second), rel=1e-9, abs=1e-15)
    for placement in found:
        check_ranks(problem, placement)


def check_ranks(problem: Problem, placement: Placement) -> None:
    """Components on own blocks don't overlap, those that share are at the same place, all within the pool."""
    where = ranks(problem, placement)
    wide = {component.name: component.model_parallel for component in problem.components}
    for part in placement.parts:
        first, last = where[part.component]
        assert last - first + 1 == part.gpus and 0 <= first <= last < problem.pools[part.pool].gpus
        for other in placement.parts:
            shared = set(part.blocks) & set(other.blocks)
            begin, end = where[other.component]
            overlap = part.pool == other.pool and first <= end and begin <= last
            assert overlap == bool(shared)
        node, n = problem.pools[part.pool].gpus_per_node, wide[part.component]
        if all(node % each == 0 for each in wide.values()):
            assert all(start // node == (start + n - 1) // node for start in range(first, last + 1, n))


@settings(max_examples=150)
@given(problems(embodied=False))
def test_pipelines_are_placed_as_brute_force_would(problem: Problem) -> None:
    check_against_brute_force(problem)


@settings(max_examples=150)
@given(problems(embodied=True))
def test_loops_are_placed_as_brute_force_would(problem: Problem) -> None:
    check_against_brute_force(problem)


def test_a_thousand_gpus_of_four_types_take_seconds() -> None:
    types = ["L4", "A10G", "A100-80GB", "H100-SXM"]
    counts = (1, 2, 4, 8, 16, 32, 64, 128, 250)
    work_s = {"rollout": 9000.0, "inference": 700.0, "actor": 5000.0}
    speeds = dict(zip(types, (1, 1.4, 4, 9), strict=True))
    components = tuple(
        Component(name, {g: profile_of({n: work / (speeds[g] * n**0.93) for n in counts}) for g in types})
        for name, work in work_s.items()
    )
    pools = tuple(Pool(gpu, 250, 8, usd) for gpu, usd in zip(types, (0.7, 1.2, 3.4, 6.9), strict=True))
    for by_time, deadline_s in ((True, math.inf), (False, 20.0)):
        problem = Problem(
            components, pools, Loop(False, batches=512), by_time=by_time, limits=Limits(deadline_s)
        )
        start = time.process_time()
        best = place(problem)[0]
        assert time.process_time() - start < 5 and best.iteration_s <= deadline_s
