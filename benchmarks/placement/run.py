"""How long placing a loop takes on many GPUs of several types, and whether the answer is the best of all.

Run: python benchmarks/placement/run.py
"""

import math
import random
import statistics
import time
from collections.abc import Callable

import numpy as np

from hgpu.latency.rl_profile import profile_of
from hgpu.solvers.rl_placement import place
from hgpu.solvers.rl_problem import Component, Limits, Loop, Pool, Problem
from hgpu.specs.rl import Pay

TYPES = {
    "L4": (1.0, 0.7),
    "A10G": (1.4, 1.2),
    "A100-80GB": (4.0, 3.4),
    "H100-SXM": (9.0, 6.9),
}  # speed, USD/h
BATCHES = 512
SEEDS = range(10)


def main() -> None:
    """Print the tables of the README."""
    print("| loop | GPUs | wanted | CPU s, median | CPU s, worst |\n|---|---|---|---|---|")
    for name, make in (("pipeline of 3", pipeline), ("embodied, 1,920 environments, k 1, 2, 4", embodied)):
        for wanted, by_time, deadline_s in (
            ("fastest", True, math.inf),
            ("cheapest", False, math.inf),
            ("cheapest in 1.5× the fastest", False, 1.5),
        ):
            taken = [timed(make, seed, by_time, deadline_s) for seed in SEEDS]
            row = f"| {name} | 4 × 250 | {wanted} | {statistics.median(taken):.2f} | {max(taken):.2f} |"
            print(row, flush=True)
    hardest = [timed(ties, batches, False, math.inf) for batches in (1, 2, 8, 512)]
    print(f"| pipeline of 3, types cost what they are worth | 4 × 250 | cheapest | - | {max(hardest):.2f} |")
    print(
        "\n| loop | ways to place it | search, CPU s | all ways, CPU s | same answer |\n|---|---|---|---|---|"
    )
    for gpus in (16, 40, 100, 250):
        compare(gpus)


def timed(make: Callable[..., Problem], seed: int, by_time: bool, deadline_s: float) -> float:
    """Return the CPU seconds of one solve; a deadline is given as a multiple of the fastest."""
    if math.isfinite(deadline_s):
        deadline_s *= place(make(seed, 250, True, math.inf))[0].iteration_s
    problem = make(seed, 250, by_time, deadline_s)
    start = time.process_time()
    found = place(problem)
    taken_s = time.process_time() - start
    assert found
    return taken_s


def pools(rng: random.Random, gpus: int) -> tuple[Pool, ...]:
    """Return a pool of each type, whose price is up to a third off."""
    return tuple(
        Pool(gpu, gpus, 8, round(usd * rng.uniform(0.67, 1.33), 3), rng.choice([Pay.NODES, Pay.GPUS]))
        for gpu, (_, usd) in TYPES.items()
    )


def component(
    rng: random.Random, name: str, work_s: float, counts: tuple[int, ...], power: float
) -> Component:
    """Return a component whose speed on a type is up to a half off, with profiles at some counts."""
    curves = {}
    for gpu, (speed, _) in TYPES.items():
        made = speed * rng.uniform(0.5, 1.5)
        scaling = power * rng.uniform(0.85, 1.0)
        curves[gpu] = profile_of({n: work_s / made * n**scaling for n in counts})
    return Component(name, curves)


def pipeline(seed: int, gpus: int, by_time: bool, deadline_s: float) -> Problem:
    """Return rollout, inference and actor that may each be on any number of GPUs."""
    rng = random.Random(seed)
    counts = (*(n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n < gpus), gpus)
    parts = (("rollout", 9000.0), ("inference", 700.0), ("actor", 5000.0))
    components = tuple(component(rng, name, work_s, counts, -1.0) for name, work_s in parts)
    return Problem(
        components, pools(rng, gpus), Loop(False, BATCHES), by_time=by_time, limits=Limits(deadline_s)
    )


def ties(batches: int, gpus: int, by_time: bool, deadline_s: float) -> Problem:
    """Return the hardest case known: all types cost what they are worth, and all scale perfectly."""
    components = tuple(
        Component(
            name,
            {
                gpu: profile_of({1: work_s / n, gpus: work_s / n / gpus})
                for gpu, n in zip(TYPES, (1, 2, 4, 8), strict=True)
            },
        )
        for name, work_s in (("rollout", 9000.0), ("inference", 700.0), ("actor", 5000.0))
    )
    offered = tuple(Pool(gpu, gpus, 8, float(n)) for gpu, n in zip(TYPES, (1, 2, 4, 8), strict=True))
    return Problem(components, offered, Loop(False, batches), by_time=by_time, limits=Limits(deadline_s))


def embodied(seed: int, gpus: int, by_time: bool, deadline_s: float) -> Problem:
    """Return a simulator, a policy and training, with profiles by environments and by GPUs."""
    rng = random.Random(seed)
    envs = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1920)
    components = (
        component(rng, "env", 0.05, envs, 0.9),
        component(rng, "rollout", 0.02, envs, 0.9),
        component(rng, "actor", 5000.0, (1, 4, 16, 64, 250), -1.0),
    )
    loop = Loop(True, steps=80, envs=1920, stages=(1, 2, 4))
    return Problem(components, pools(rng, gpus), loop, by_time=by_time, limits=Limits(deadline_s))


def compare(gpus: int) -> None:
    """Print a row: the search against trying every way to place a pipeline on GPUs of its own."""
    problem = pipeline(1, gpus, False, math.inf)
    fastest = place(pipeline(1, gpus, True, math.inf))[0].iteration_s
    problem = pipeline(1, gpus, False, 1.5 * fastest)
    start = time.process_time()
    found = next(row for row in place(problem) if row.mode == "disaggregated")
    search_s = time.process_time() - start
    start = time.process_time()
    usd = cheapest_of_all(problem)
    all_s = time.process_time() - start
    same = "yes" if abs(usd - found.usd_per_iteration) < 1e-9 * usd else f"NO: {usd} USD"
    ways = (len(problem.pools) * gpus) ** 3
    print(
        f"| pipeline of 3 on 4 × {gpus} GPUs | {ways:,} | {search_s:.2f} | {all_s:.2f} | {same} |", flush=True
    )


def cheapest_of_all(problem: Problem) -> float:
    """Return the least money of an iteration, from all ways; written without the solver's arrays."""
    spots = [(number, n) for number, pool in enumerate(problem.pools) for n in range(1, pool.gpus + 1)]
    seconds = [
        np.array([reading(problem, part, *spot) for spot in spots]) for part in range(len(problem.components))
    ]
    pool_of, gpus_of = (np.array(column) for column in zip(*spots, strict=True))
    least = math.inf
    for number, (pool, n) in enumerate(spots):
        used = [
            (n if pool == p else 0)
            + np.where(pool_of == p, gpus_of, 0)[:, None]
            + np.where(pool_of == p, gpus_of, 0)[None, :]
            for p in range(len(problem.pools))
        ]
        first, second, third = seconds[0][number], seconds[1][:, None], seconds[2][None, :]
        slowest = np.maximum(first, np.maximum(second, third))
        time_s = (first + second + third + (BATCHES - 1) * slowest) / BATCHES
        rate = sum(price(pool, count) for pool, count in zip(problem.pools, used, strict=True))
        fits = time_s <= problem.limits.iteration_s
        for pool_here, count in zip(problem.pools, used, strict=True):
            fits &= count <= pool_here.gpus
        least = min(least, float(np.where(fits, rate * time_s / 3600, np.inf).min()))
    return least


def reading(problem: Problem, part: int, pool: int, gpus: int) -> float:
    """Return a component's seconds, infinite where it has none."""
    found = problem.component_reading(problem.components[part], problem.pools[pool].gpu, gpus)
    return math.inf if found is None else found.seconds


def price(pool: Pool, count: np.ndarray) -> np.ndarray:
    """Return USD/h of counts of GPUs."""
    each = 1 if pool.pay is Pay.GPUS else pool.gpus_per_node
    return -(-count // each) * each * pool.usd_per_gpu_hour


if __name__ == "__main__":
    main()
