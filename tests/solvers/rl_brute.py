"""Every placement of a small loop, written from the definition: what the solver is held against."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

Seconds = Callable[[str, str, int, int], float | None]  # component, GPU, GPUs, stages
Spot = tuple[int, int]  # pool, GPUs


@dataclass(frozen=True)
class Tried:
    """One placement: GPUs of each pool, and seconds."""

    used: tuple[int, ...]
    iteration_s: float


@dataclass(frozen=True)
class Small:
    """Pools by GPU type and size, what components take, and what sharing or not costs an iteration."""

    pools: list[tuple[str, int]]
    seconds: Seconds
    switch_s: float
    sync_s: float
    modes: set[str]

    @property
    def spots(self) -> list[Spot]:
        return [(p, n) for p, (_, most) in enumerate(self.pools) for n in range(1, most + 1)]

    def at(self, name: str, spot: Spot, stages: int = 1) -> float | None:
        return self.seconds(name, self.pools[spot[0]][0], spot[1], stages)

    def used(self, *spots: Spot) -> tuple[int, ...] | None:
        used = [sum(n for p, n in spots if p == pool) for pool in range(len(self.pools))]
        return tuple(used) if all(u <= most for u, (_, most) in zip(used, self.pools, strict=True)) else None

    def tried(self, spots: list[Spot], *parts: float | None) -> Iterator[Tried]:
        used = self.used(*spots)
        if used is not None and None not in parts:
            yield Tried(used, sum(part for part in parts if part is not None))


def pipelines(small: Small, names: list[str], batches: int) -> Iterator[Tried]:
    for spot in small.spots if "collocated" in small.modes else ():
        yield from small.tried([spot], small.switch_s, *(small.at(name, spot) for name in names))
    for chosen in product(small.spots, repeat=len(names)) if "disaggregated" in small.modes else ():
        found = [small.at(name, spot) for name, spot in zip(names, chosen, strict=True)]
        a_batch = [seconds / batches for seconds in found if seconds is not None]
        if len(a_batch) == len(names):
            yield from small.tried([*chosen], small.sync_s, sum(a_batch), (batches - 1) * max(a_batch))


def loops(small: Small, steps: int, stages: list[int]) -> Iterator[Tried]:
    yield from _acting_together(small, steps)
    for k in stages:
        for env, policy in product(small.spots, small.spots):
            e, g = small.at("env", env, k), small.at("rollout", policy, k)
            if e is not None and g is not None and small.used(env, policy):
                acting = steps * (e + g) if k == 1 else steps * max(k * e, k * g, e + g) + min(e, g)
                yield from _training(small, acting, env, policy)


def _acting_together(small: Small, steps: int) -> Iterator[Tried]:
    for spot in small.spots:
        e, g = small.at("env", spot), small.at("rollout", spot)
        if e is None or g is None:
            continue
        acting = steps * (e + g)
        if "collocated" in small.modes:
            yield from small.tried([spot], acting, small.at("actor", spot), small.switch_s)
        for other in small.spots if "hybrid" in small.modes else ():
            yield from small.tried([spot, other], acting, small.at("actor", other), small.sync_s)


def _training(small: Small, acting: float, env: Spot, policy: Spot) -> Iterator[Tried]:
    if "hybrid" in small.modes:
        yield from small.tried([env, policy], acting, small.at("actor", policy), small.switch_s)
        yield from small.tried([env, policy], acting, small.at("actor", env), small.switch_s + small.sync_s)
        if env[0] == policy[0]:
            both = (env[0], env[1] + policy[1])
            yield from small.tried([env, policy], acting, small.at("actor", both), small.switch_s)
    for own in small.spots if "disaggregated" in small.modes else ():
        yield from small.tried([env, policy, own], acting, small.at("actor", own), small.sync_s)
