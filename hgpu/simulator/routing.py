"""Which pool takes a request: the shares of its bucket, obeyed to within one request.

The requests of a bucket are spread in order of arrival. With w a pool's share and c what it has taken,
the pool may take the n-th request while c < n·w, so it is never a request ahead, and its next one is
due by (c + 1)/w. The pool that is due first takes it. That is proportionate fairness (Baruah et al.,
1996): no pool is ever ahead of or behind n·w by a request or more. The plainer smooth weighted round
robin (the largest n·w − c takes it) falls behind by more than one where there are three pools or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hgpu.core.errors import InputError
from hgpu.core.workload import Bucket
from hgpu.workloads.trace import Ints

NOBODY = -1


@dataclass(frozen=True, slots=True)
class Routing:
    """The share of each bucket (row) that each pool (column) takes; a row sums to 1.

    Where requests have tiers, `tiers` says which part of every bucket each is, and there are rows for all
    buckets of the first tier, then of the next. A bucket holds input in (low, high] and output in
    (low, high]; the low edge of the first bucket of a workload reads 0, so the smallest lengths are in it.
    """

    buckets: tuple[Bucket, ...]
    shares: tuple[tuple[float, ...], ...]
    tiers: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        """Refuse shares that would lose requests."""
        for bucket, row in zip(self.buckets * len(self.tiers), self.shares, strict=True):
            if any(share < 0 for share in row) or abs(sum(row) - 1) > 1e-6:
                raise InputError(
                    f"bad shares of bucket {bucket.name}: {', '.join(f'{share:g}' for share in row)}",
                    "they must be 0 or more and sum to 1",
                )

    def pools_of(self, input_tokens: Ints, output_tokens: Ints) -> tuple[Ints, Ints]:
        """Return the pool and the tier of each request, by number; NOBODY where no bucket holds it."""
        pools = np.full(len(input_tokens), NOBODY, np.int64)
        tiers = np.full(len(input_tokens), NOBODY, np.int64)
        for number, bucket in enumerate(self.buckets):
            held = np.flatnonzero(
                (input_tokens > bucket.input_low)
                & (input_tokens <= bucket.input_high)
                & (output_tokens > bucket.output_low)
                & (output_tokens <= bucket.output_high)
            )
            tiers[held] = spread(self.tiers, len(held))
            for tier in range(len(self.tiers)):
                mine = held[tiers[held] == tier]
                pools[mine] = spread(self.shares[tier * len(self.buckets) + number], len(mine))
        return pools, tiers


def spread(shares: Sequence[float], requests: int) -> list[int]:
    """Return which pool takes each of that many requests; shares sum to 1."""
    pools = [pool for pool, share in enumerate(shares) if share > 0]
    if len(pools) == 1:
        return pools * requests
    taken = [0] * len(shares)
    order = []
    for number in range(1, requests + 1):
        first, first_due = NOBODY, np.inf
        for pool in pools:
            due = (taken[pool] + 1) / shares[pool]
            if due < first_due and taken[pool] < number * shares[pool]:
                first, first_due = pool, due
        taken[first] += 1
        order.append(first)
    return order
