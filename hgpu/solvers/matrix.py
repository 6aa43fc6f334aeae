"""A mixed-integer program as arrays, built block by block.

100,000 shares are built here in a few milliseconds; one expression object each would take seconds.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class Matrix:
    """min cost·v subject to row_lower ≤ A·v ≤ row_upper and 0 ≤ v ≤ upper, some v whole.

    `shares` are the variables that are shares of a bucket: `share_buckets` of which, `share_columns` to
    which column each goes.
    """

    variables: int = 0
    rows: int = 0
    shares: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    share_buckets: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    share_columns: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    _costs: list[Floats] = field(default_factory=list)
    _uppers: list[Floats] = field(default_factory=list)
    _integer: list[NDArray[np.bool_]] = field(default_factory=list)
    _row_lowers: list[Floats] = field(default_factory=list)
    _row_uppers: list[Floats] = field(default_factory=list)
    _entries: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)

    def add_variables(
        self, count: int, cost: ArrayLike = 0.0, upper: ArrayLike = np.inf, integer: bool = False
    ) -> Ints:
        """Add variables and return their numbers."""
        numbers = np.arange(self.variables, self.variables + count)
        self.variables += count
        self._costs.append(np.broadcast_to(np.asarray(cost, float), count))
        self._uppers.append(np.broadcast_to(np.asarray(upper, float), count))
        self._integer.append(np.full(count, integer))
        return numbers

    def add_rows(self, count: int, lower: ArrayLike = -np.inf, upper: ArrayLike = np.inf) -> Ints:
        """Add constraints and return their numbers."""
        numbers = np.arange(self.rows, self.rows + count)
        self.rows += count
        self._row_lowers.append(np.broadcast_to(np.asarray(lower, float), count))
        self._row_uppers.append(np.broadcast_to(np.asarray(upper, float), count))
        return numbers

    def add_entries(self, rows: ArrayLike, variables: ArrayLike, values: ArrayLike) -> None:
        """Add coefficients; those of the same place add up."""
        where, which = np.atleast_1d(np.asarray(rows)), np.atleast_1d(np.asarray(variables))
        where, which, what = np.broadcast_arrays(where, which, np.asarray(values, float))
        self._entries.append((where, which, what))

    @property
    def costs(self) -> Floats:
        """Cost of each variable."""
        return np.concatenate(self._costs)

    @property
    def uppers(self) -> Floats:
        """Upper bound of each variable."""
        return np.concatenate(self._uppers)

    @property
    def integer(self) -> NDArray[np.bool_]:
        """Which variables are whole numbers."""
        return np.concatenate(self._integer)

    @property
    def row_bounds(self) -> tuple[Floats, Floats]:
        """Lower and upper bound of each row."""
        return np.concatenate(self._row_lowers), np.concatenate(self._row_uppers)

    def coefficients(self) -> Any:
        """Return A, sparse by columns."""
        from scipy.sparse import coo_matrix

        rows, variables, values = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        return coo_matrix((values, (rows, variables)), shape=(self.rows, self.variables)).tocsc()
