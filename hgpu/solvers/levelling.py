"""Shares that spread the load: the same machines, none busier than it must be.

With the counts fixed, many shares cost the same. A solver returns one that fills some engines to the
brim and leaves others idle, where queues grow first. So the highest utilisation is made as low as it
can be, then that of the pools that can still be relieved, and so on (lexicographic min-max).
"""

from collections.abc import Sequence

import numpy as np

from hgpu.solvers.highs import Outcome, minimize
from hgpu.solvers.matrix import Floats, Matrix
from hgpu.solvers.problem import Problem

ROUNDS = 4
TIGHT = 1e-6


def levelled(problem: Problem, engines: Sequence[int], shares: Floats) -> Floats:
    """Return shares (buckets × columns) of the same engines that level their load.

    What may go to spot machines stays within its part, and spare machines stay spare.
    """
    room = np.array(
        [
            count - column.spare_machines * column.engines_per_machine if count else 0
            for count, column in zip(engines, problem.columns, strict=True)
        ],
        float,
    )
    used = np.flatnonzero(room > 0)
    if len(used) < 2:
        return shares
    capacity = np.array([problem.columns[c].capacity_rps for c in used]).T
    load = (
        np.divide(
            np.array(problem.rates_rps)[:, None], capacity, out=np.zeros_like(capacity), where=capacity > 0
        )
        / room[used]
    )
    spot = np.array([problem.columns[c].offer.market == "spot" for c in used])
    ceiling = np.full(len(used), np.nan)
    for _ in range(ROUNDS):
        found = _lowest_peak(load, capacity, spot, problem.preemptible_shares, ceiling)
        if found is None:
            break
        peak, level, tight = found
        shares = np.zeros_like(shares)
        shares[:, used] = level
        ceiling[tight] = peak
        if not np.isnan(ceiling).any():
            break
    return shares


def _lowest_peak(
    load: Floats, capacity: Floats, spot: Floats, spot_shares: Sequence[float], ceiling: Floats
) -> tuple[float, Floats, Floats] | None:
    """Minimise the highest use of the pools without a ceiling; return it, the shares, who is bound by it."""
    matrix = Matrix()
    peak = matrix.add_variables(1, cost=1.0)
    wanted = load.sum(1) > 0
    buckets, pools = np.nonzero((capacity > 0) & wanted[:, None])
    cells = matrix.add_variables(len(buckets))
    served = matrix.add_rows(len(load), lower=np.where(wanted, 1.0, 0.0), upper=1.0)
    matrix.add_entries(served[buckets], cells, 1.0)
    open_pools = np.isnan(ceiling)
    carried = matrix.add_rows(len(ceiling), upper=np.where(open_pools, 0.0, np.nan_to_num(ceiling) + TIGHT))
    matrix.add_entries(carried[pools], cells, load[buckets, pools])
    matrix.add_entries(carried[open_pools], peak, -1.0)
    if spot.any() and spot_shares:
        kept = matrix.add_rows(len(load), upper=np.array(spot_shares))
        mine = spot[pools]
        matrix.add_entries(kept[buckets[mine]], cells[mine], 1.0)
    answer = minimize(matrix, 0.0, 60.0)
    if answer.outcome is not Outcome.PROVEN:
        return None
    level = np.zeros_like(load)
    level[buckets, pools] = answer.values[cells]
    highest = float(answer.values[peak[0]])
    bound = open_pools & ((level * load).sum(0) >= highest - TIGHT)
    return highest, level, bound
