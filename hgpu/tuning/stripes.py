"""Cutting a tensor's memory into stripes, so that each node gets the bytes that a placement gives it.

Interleaving by the kernel shares evenly, and weighted interleaving has one set of weights for the whole
machine. Any other division is laid as stripes that are bound one by one. They are coarser than pages, so one
stream finds one tier after the other, and many threads find all of them.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE_BYTES = 2 * 2**20
MOST_STRIPES = 1024  # each may be a mapping of its own, of which the kernel allows 65,530


@dataclass(frozen=True, slots=True)
class Stripe:
    """A run of bytes on one node; `start` is a multiple of the page size."""

    start: int
    size_bytes: int
    node: int


def stripes(bytes_by_node: Sequence[tuple[int, int]]) -> list[Stripe]:
    """Return stripes in the order of addresses for (node, bytes), mixed as evenly as they go.

    Every node gets its bytes to within a unit, see `unit_bytes`; neighbours on one node become one stripe.
    """
    total = sum(size for _, size in bytes_by_node)
    unit = unit_bytes(total)
    count = -(-total // unit)
    owners = _owners(np.array([size for _, size in bytes_by_node], float) / total, count)
    found: list[Stripe] = []
    for number, owner in enumerate(owners):
        node, start = bytes_by_node[owner][0], number * unit
        size = min(unit, total - start)
        if found and found[-1].node == node:
            found[-1] = Stripe(found[-1].start, found[-1].size_bytes + size, node)
        else:
            found.append(Stripe(start, size, node))
    return found


def unit_bytes(total: int) -> int:
    """Return a 1024th of the whole, in whole pages, and in whole huge pages from there on."""
    part = -(-total // MOST_STRIPES)
    page = HUGE_PAGE_BYTES if part > HUGE_PAGE_BYTES else mmap.PAGESIZE
    return -(-part // page) * page


def _owners(shares: NDArray[np.float64], count: int) -> list[int]:
    """Give each stripe to whoever is furthest behind its share, the first among equals."""
    given = np.zeros(len(shares))
    owners = []
    for number in range(1, count + 1):
        owner = int(np.argmax(np.round(shares * number - given, 9)))
        given[owner] += 1
        owners.append(owner)
    return owners
