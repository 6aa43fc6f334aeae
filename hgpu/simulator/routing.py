"""Which pool takes a request: the shares of its bucket, obeyed to within one request.

The requests of a bucket are spread in order of arrival. With w a pool's share and c what it has taken,
the pool may take the n-th request while c < n·w, so it is never a request ahead, and its next one is
due by (c + 1)/w. The pool that is due first takes it. That is proportionate fairness (Baruah et al.,
1996): no pool is ever ahead of or behind n·w by a request or more. The plainer smooth weighted round
robin (the largest n·w − c takes it) falls behind by more than one where there are three pools or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

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
        return Dispatch(self).pools_of(input_tokens, output_tokens)


class Dispatch:
    """A routing at work: goes on from request to request where it stopped."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self.tiers = [Turns(routing.tiers) for _ in routing.buckets]
        self.pools = [Turns(row) for row in routing.shares]

    def pools_of(self, input_tokens: Ints, output_tokens: Ints) -> tuple[Ints, Ints]:
        """Return the pool and the tier of the next requests, by number; NOBODY where no bucket holds it."""
        pools = np.full(len(input_tokens), NOBODY, np.int64)
        tiers = np.full(len(input_tokens), NOBODY, np.int64)
        buckets = self.routing.buckets
        for number, bucket in enumerate(buckets):
            held = np.flatnonzero(
                (input_tokens > bucket.input_low)
                & (input_tokens <= bucket.input_high)
                & (output_tokens > bucket.output_low)
                & (output_tokens <= bucket.output_high)
            )
            tiers[held] = self.tiers[number].take_all(len(held))
            for tier in range(len(self.routing.tiers)):
                mine = held[tiers[held] == tier]
                pools[mine] = self.pools[tier * len(buckets) + number].take_all(len(mine))
        return pools, tiers


class Turns:
    """Whose turn it is, request by request; shares sum to 1."""

    __slots__ = ("_number", "_pools", "_shares", "_taken")

    def __init__(self, shares: Sequence[float]) -> None:
        self._pools = [pool for pool, share in enumerate(shares) if share > 0]
        self._shares = shares
        self._taken = [0] * len(shares)
        self._number = 0

    def take(self) -> int:
        """Return the pool that takes the next request."""
        if len(self._pools) == 1:
            return self._pools[0]
        self._number += 1
        first, first_due = NOBODY, inf
        for pool in self._pools:
            due = (self._taken[pool] + 1) / self._shares[pool]
            if due < first_due and self._taken[pool] < self._number * self._shares[pool]:
                first, first_due = pool, due
        self._taken[first] += 1
        return first

    def take_all(self, requests: int) -> list[int]:
        """Return the pools that take the next so many requests."""
        return [self.take() for _ in range(requests)]


def spread(shares: Sequence[float], requests: int) -> list[int]:
    """Return which pool takes each of that many requests; shares sum to 1."""
    return Turns(shares).take_all(requests)
