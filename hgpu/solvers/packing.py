"""Engines on machines: the widest first, each on the first machine that has room."""

from collections.abc import Sequence


def machines_of(engines: Sequence[tuple[int, int]], gpus_per_machine: int) -> list[int]:
    """Return on how many machines each kind of engine, given as (GPUs, count), has one or more.

    Degrees of tensor parallelism divide one another, so that the widest first leaves no gap that a
    narrower one can't fill.
    """
    free: list[int] = []
    hosts = [0] * len(engines)
    for kind in sorted(range(len(engines)), key=lambda k: -engines[k][0]):
        size, count = engines[kind]
        used: set[int] = set()
        for _ in range(count):
            place = next((m for m, gpus in enumerate(free) if gpus >= size), len(free))
            if place == len(free):
                free.append(gpus_per_machine)
            free[place] -= size
            used.add(place)
        hosts[kind] = len(used)
    return hosts
