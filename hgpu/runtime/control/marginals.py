"""What an engine's counters say of request lengths: two histograms, of inputs and of outputs.

Which inputs go with which outputs they don't say. The joint histogram is taken to be the nearest to a known
one that has both: rows and columns are scaled in turn until they match (iterative proportional fitting:
Deming and Stephan, Annals of Mathematical Statistics 11, 1940).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
ROUNDS = 30
SEED = 1e-6  # of all requests, for a cell that nobody was in yet


@dataclass(frozen=True, slots=True)
class Histogram:
    """Requests in (previous edge, edge], the last edge being infinite, and the sum of their tokens."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]
    tokens: float

    @property
    def requests(self) -> float:
        """All requests."""
        return sum(self.counts)


def regridded(histogram: Histogram, highs: Sequence[int]) -> Floats:
    """Return the counts in (previous high, high]; those above the last high are in the last cell.

    Lengths are taken to be spread evenly on a logarithmic scale inside of each given bucket, and those above
    its last finite edge to end at the last high.
    """
    cells = np.zeros(len(highs))
    bounds = np.log(np.maximum([1.0, *highs], 1.0))
    bounds[0] = 0.0
    below = 1.0
    for edge, count in zip(histogram.edges, histogram.counts, strict=True):
        top = max(highs[-1], below) if edge == inf else edge
        low, high = np.log(max(below, 1.0)), np.log(max(top, 1.0))
        if high > low:
            covered = np.clip(np.minimum(bounds[1:], high) - np.maximum(bounds[:-1], low), 0.0, None)
            part = covered / (high - low)
            part[-1] += max(0.0, 1.0 - part.sum())
        else:
            part = np.eye(len(highs))[min(int(np.searchsorted(highs, top)), len(highs) - 1)]
        cells += count * part
        below = top
    return cells


def fitted(seed: Floats, rows: Floats, columns: Floats) -> Floats:
    """Return the joint counts (rows × columns) nearest to `seed` with these sums, which add up alike."""
    total = rows.sum()
    joint: Floats = seed / seed.sum() + SEED
    columns = columns * (total / columns.sum())
    for _ in range(ROUNDS):
        joint *= _parts(rows, joint.sum(1))[:, None]
        joint *= _parts(columns, joint.sum(0))
    return joint


def _parts(wanted: Floats, sums: Floats) -> Floats:
    return np.divide(wanted, sums, out=np.zeros_like(sums), where=sums > 0)
