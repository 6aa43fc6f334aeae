"""The best placement of a reinforcement-learning loop, exactly, also on a thousand GPUs.

**Search.** Each layout of `rl_layouts` has heads h and tails j. Its answer is the least of
T(h, j) = (S_h + t_j)·w + β·max(m_h, t_j) + overhead, or of the money R(h, j)·T(h, j), over all pairs that fit
the pools, with R the price of the GPUs that both use. Pairs aren't all tried. T(h, j) is at least
L_h = T(h, fastest tail). For money, tails that take about as long form a group g; with the least price r_g
and the least seconds t_g of its tails, and prices r of GPUs alone, without the rest of their nodes,

    R(h, j)·T(h, j) ≥ (r_h + r_g)·T(h, t_g)    for each tail j of the group g,

and the least of that over the groups is the bound B_h. Heads are taken in the order of their bound (L or B)
and compared with every tail; the search ends where the next bound is above the best answer found.

**Why that is exact.** T rises in S, t and m. Prices don't fall with GPUs, and whole nodes cost no less than
their GPUs. So no pair is below the bound of its head, and a head that isn't tried has no pair below the
answer. Choices that a component has on a pool and that fewer GPUs equal or beat are left out before
(`useful`): exchanging one for the smaller one fits, costs no more and takes no longer.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hgpu.solvers.rl_layouts import Choice, Ints, Rows, layouts
from hgpu.solvers.rl_problem import Floats, Part, Placement, Problem
from hgpu.specs.rl import Pay

SAME = 1e-12  # relative: below it two answers count as equal, and the second criterion decides
FITS = 1e-9  # relative slack of limits, for the last bits of floating point
PAIRS_AT_ONCE = 1_000_000
GROUPS = 48  # of tails: more bound better, and take longer


@dataclass(frozen=True, slots=True)
class _Best:
    """The best pair so far, by its key: what is wanted first, then the other, then the GPUs."""

    key: tuple[float, float, float]
    head: int
    tail: int

    def beats(self, other: "_Best | None") -> bool:
        """Tell whether this one is better, by the first criterion that differs."""
        if other is None:
            return True
        for mine, theirs in zip(self.key, other.key, strict=True):
            if abs(mine - theirs) > SAME * max(abs(mine), abs(theirs)):
                return mine < theirs
        return False


def place(problem: Problem) -> list[Placement]:
    """Return the best placement of each layout and number of stages that fits the limits, the best first."""
    found = [
        (best.key, _placement(problem, rows, best))
        for rows in layouts(problem)
        if (best := _best(problem, rows))
    ]
    return [placement for _, placement in sorted(found, key=lambda row: _rounded(row[0]))]


def _rounded(key: tuple[float, float, float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.11g}") for value in key)


def _best(problem: Problem, rows: Rows) -> _Best | None:
    used = _used(rows, len(problem.pools))
    tails = _Tails(problem, rows)
    bound, lasts_s, costs_usd = tails.bounds(problem, rows, used)
    limits = problem.limits
    able = (lasts_s <= limits.iteration_s * (1 + FITS)) & (costs_usd <= limits.iteration_usd * (1 + FITS))
    able &= (used <= np.array([pool.gpus for pool in problem.pools])).all(axis=1)
    order = np.flatnonzero(able)
    order = order[np.argsort(bound[order], kind="stable")]
    best: _Best | None = None
    for heads in _chunks(order, len(rows.tails)):
        if best is not None and bound[heads[0]] > best.key[0] * (1 + SAME):
            break
        found = tails.pairs(problem, rows, used, heads)
        if found is not None and found.beats(best):
            best = found
    return best


def _chunks(order: Ints, tails: int) -> Iterator[Ints]:
    """Yield heads, few at first: the first answer makes the bound that ends the search."""
    start, size = 0, 64
    while start < len(order):
        yield order[start : start + size]
        start, size = start + size, min(4 * size, max(1, PAIRS_AT_ONCE // tails))


def _used(rows: Rows, pools: int) -> Ints:
    """Return the GPUs of each pool that each head uses."""
    used = np.zeros((len(rows.sum_s), pools), dtype=np.int64)
    for block in range(rows.pool.shape[1]):
        np.add.at(used, (np.arange(len(used)), rows.pool[:, block]), rows.gpus[:, block])
    return used


class _Tails:
    """A layout's tails as arrays, with what bounds the pairs that they are in."""

    def __init__(self, problem: Problem, rows: Rows) -> None:
        self.pool = np.array([tail.pool for tail in rows.tails], dtype=np.int64)
        self.gpus = np.array([tail.gpus for tail in rows.tails], dtype=np.int64)
        self.seconds = np.array([tail.seconds for tail in rows.tails])
        # Prices by used GPUs; infinite above what the pool has, so that no pair that doesn't fit is best.
        most = max(pool.gpus for pool in problem.pools)
        self.prices = np.full((len(problem.pools), 2 * most + 1), np.inf)
        for number, pool in enumerate(problem.pools):
            self.prices[number, : pool.gpus + 1] = pool.prices
        self.fixed = sum(p.usd_per_hour(0) for p in problem.pools)
        self.alone = np.array([0.0 if p.pay is Pay.POOL else p.usd_per_gpu_hour for p in problem.pools])

    def bounds(self, problem: Problem, rows: Rows, used: Ints) -> tuple[Floats, Floats, Floats]:
        """Return each head's bound on what is wanted, on seconds and on money."""
        lasts_s = _time_s(rows, rows.sum_s, rows.max_s, self.seconds.min())
        head_usd = self.fixed + used @ self.alone
        costs_usd = np.full(len(lasts_s), np.inf)
        for tail_usd, tail_s in self.groups():
            together = (head_usd + tail_usd) * _time_s(rows, rows.sum_s, rows.max_s, tail_s) / 3600
            np.minimum(costs_usd, together, out=costs_usd)
        return (lasts_s if problem.by_time else costs_usd), lasts_s, costs_usd

    def groups(self) -> list[tuple[float, Floats]]:
        """Return the least price and the least seconds of tails that take about as long."""
        price = self.alone[self.pool] * self.gpus
        low_s, high_s = self.seconds.min(), self.seconds.max()
        width = max(math.log(high_s / low_s), 1e-9) / GROUPS if low_s else 1.0
        group = np.floor(np.log(self.seconds / low_s) / width) if low_s else np.zeros(len(price))
        return [
            (float(price[group == g].min()), np.array(self.seconds[group == g].min()))
            for g in np.unique(group)
        ]

    def pairs(self, problem: Problem, rows: Rows, used: Ints, heads: Ints) -> _Best | None:
        """Return the best pair of these heads with any tail, or None where none fits."""
        seconds = _time_s(rows, rows.sum_s[heads, None], rows.max_s[heads, None], self.seconds[None, :])
        held = used[heads]
        single = self.prices[np.arange(len(problem.pools)), np.minimum(held, self.prices.shape[1] - 1)]
        others = single.sum(axis=1, keepdims=True) - single
        rate = others[:, self.pool] + self.prices[self.pool, held[:, self.pool] + self.gpus]
        usd = rate * seconds / 3600
        limits = problem.limits
        fits = np.isfinite(usd) & (seconds <= limits.iteration_s * (1 + FITS))
        fits &= usd <= limits.iteration_usd * (1 + FITS)
        if not fits.any():
            return None
        first, second = (seconds, usd) if problem.by_time else (usd, seconds)
        gpus = held.sum(axis=1)[:, None] + self.gpus
        for values in (first, second, gpus):
            least = values[fits].min()
            fits &= values <= least + abs(least) * SAME
        row, tail = (int(found[0]) for found in np.nonzero(fits))
        key = (float(first[row, tail]), float(second[row, tail]), float(gpus[row, tail]))
        return _Best(key, int(heads[row]), tail)


def _time_s(rows: Rows, sum_s: Floats, max_s: Floats, tail_s: Floats) -> Floats:
    """Return T of heads and tails; see the top of `rl_layouts`."""
    share = 1 / rows.batches
    total: Floats = (sum_s + tail_s) * share + (1 - share) * np.maximum(max_s, tail_s) + rows.overhead_s
    return total


def _placement(problem: Problem, rows: Rows, best: _Best) -> Placement:
    pairs = zip(rows.pool[best.head], rows.gpus[best.head], strict=True)
    blocks = [*(Choice(int(pool), int(gpus), 0.0) for pool, gpus in pairs), rows.tails[best.tail]]
    parts = []
    for component in problem.components:
        used = [blocks[number] for number in rows.blocks[component.name]]
        pool, gpus = used[0].pool, sum(block.gpus for block in used)
        reading = problem.component_reading(component, problem.pools[pool].gpu, gpus, rows.stages)
        assert reading is not None  # the row was made from it
        parts.append(Part(component.name, pool, gpus, reading, rows.blocks[component.name]))
    taken = [0] * len(problem.pools)
    for block in blocks:
        taken[block.pool] += block.gpus
    tail_s = np.array([rows.tails[best.tail].seconds])
    iteration_s = float(_time_s(rows, rows.sum_s[best.head], rows.max_s[best.head], tail_s)[0])
    usd_per_hour = sum(pool.usd_per_hour(gpus) for pool, gpus in zip(problem.pools, taken, strict=True))
    return Placement(
        rows.mode, rows.layout, rows.stages, tuple(parts), tuple(taken), iteration_s, usd_per_hour
    )
