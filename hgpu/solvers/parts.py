"""Which parts of a large program are worth searching first, told by its relaxation."""

from collections.abc import Iterator

import numpy as np

from hgpu.solvers.matrix import Floats, Ints, Matrix

SHARES_A_BUCKET = 4  # by reduced cost: who serves it where many machines are rented
SMALL_FLEET = 0.5  # machines for each column that may be used, below which a fleet is small
COLUMNS = (8, 16)  # by what the relaxation gives them to serve: where few machines are


def parts_of(matrix: Matrix, values: Floats, reduced_costs: Floats) -> Iterator[Ints]:
    """Yield parts of the variables to search, the likeliest first, given those of the relaxation.

    A large fleet differs little from the relaxed one: each bucket is served by one of the few columns
    that are cheapest for it there. A small one can't rent a fraction of each column that is cheapest
    for some bucket: it makes do with few columns that are good for many.
    """
    columns_usable = len(np.unique(matrix.share_columns))
    small = values[matrix.integer].sum() < SMALL_FLEET * columns_usable
    ranks = ranks_of_columns(matrix, values) if small else ranks_in_buckets(matrix, reduced_costs)
    others = np.setdiff1d(np.arange(matrix.variables), matrix.shares)
    for most in COLUMNS if small else (SHARES_A_BUCKET,):
        if (ranks >= most).any():
            yield np.union1d(others, matrix.shares[ranks < most])


def ranks_in_buckets(matrix: Matrix, reduced_costs: Floats) -> Ints:
    """Return each share's place among those of its bucket, by reduced cost."""
    buckets = matrix.share_buckets
    order = np.lexsort((reduced_costs[matrix.shares], buckets))
    ordered = buckets[order]
    ranks = np.empty(len(buckets), np.int64)
    ranks[order] = np.arange(len(buckets)) - np.searchsorted(ordered, ordered)
    return ranks


def ranks_of_columns(matrix: Matrix, values: Floats) -> Ints:
    """Return, for each share, the place of its column by how much of all buckets it serves."""
    served = np.bincount(matrix.share_columns, weights=values[matrix.shares])
    places = np.empty(len(served), np.int64)
    places[np.argsort(-served, kind="stable")] = np.arange(len(served))
    return places[matrix.share_columns]
