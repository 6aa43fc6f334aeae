"""Engines on machines: the widest first, each on a machine that has room left, else on a new one."""

from collections.abc import Sequence


def machines_of(engines: Sequence[tuple[int, int]], gpus_per_machine: int) -> list[int]:
    """Return on how many machines each kind of engine, given as (GPUs, count), has one or more.

    Degrees of tensor parallelism divide one another, so that the widest first leaves no gap that a
    narrower one can't fill. Machines with as many GPUs left are counted together: a fleet of a million
    is packed as fast as one of ten.
    """
    left: dict[int, int] = {}  # GPUs that are left on a machine -> how many such machines
    hosts = [0] * len(engines)
    for kind in sorted(range(len(engines)), key=lambda k: -engines[k][0]):
        size, count = engines[kind]
        for gpus in sorted((gpus for gpus in left if gpus >= size), reverse=True):
            machines = min(left[gpus], -(-count // (gpus // size)))
            count -= _fill(left, gpus, machines, size, count)
            hosts[kind] += machines
        if count:
            machines = -(-count // (gpus_per_machine // size))
            left[gpus_per_machine] = left.get(gpus_per_machine, 0) + machines
            _fill(left, gpus_per_machine, machines, size, count)
            hosts[kind] += machines
    return hosts


def _fill(left: dict[int, int], gpus: int, machines: int, size: int, count: int) -> int:
    """Put engines on machines that have so many GPUs left, all full but perhaps the last; return how many."""
    each = gpus // size
    placed = min(count, machines * each)
    full, rest = divmod(placed, each)
    left[gpus] -= full + (rest > 0)
    for free, number in ((gpus - each * size, full), (gpus - rest * size, int(rest > 0))):
        left[free] = left.get(free, 0) + number
    return placed
