"""Searching a part of a large program first, and proving it by the relaxation of the whole."""

import numpy as np
import pytest
from solvers.cases import column, offer, problem

from hgpu.solvers import highs
from hgpu.solvers.highs import Outcome, minimize
from hgpu.solvers.matrix import Matrix
from hgpu.solvers.model import layout_of
from hgpu.solvers.parts import parts_of, ranks_in_buckets, ranks_of_columns
from hgpu.solvers.problem import Limit, Problem

BUCKETS, COLUMNS = 20, 12


def random_case(rate_rps: float) -> Problem:
    rng = np.random.default_rng(7)
    rates = tuple(rate_rps * rng.lognormal(size=BUCKETS))
    prices = np.sort(rng.uniform(0.7, 7.5, COLUMNS))
    columns = [
        column(offer(f"gpu{number}", float(price)), *(price * noise).tolist())
        for number, (price, noise) in enumerate(
            zip(prices, rng.lognormal(sigma=0.2, size=(COLUMNS, BUCKETS)), strict=True)
        )
    ]
    caps = [Limit(f"cap {c}", {c: 1.0}, at_most=max(2.0, 2 * rate_rps)) for c in range(COLUMNS - 1)]
    return problem(rates, columns, *caps)


def two_by_three() -> Matrix:
    """Two buckets: three columns may serve the first, two the second."""
    matrix = Matrix()
    matrix.add_variables(3, cost=1.0, integer=True)
    matrix.shares = matrix.add_variables(5)
    matrix.share_buckets = np.array([0, 0, 0, 1, 1])
    matrix.share_columns = np.array([0, 1, 2, 0, 2])
    return matrix


def test_shares_rank_among_those_of_their_bucket() -> None:
    reduced_costs = np.array([9.0, 9.0, 9.0, 0.3, 0.0, 0.2, 0.0, 0.1])
    assert ranks_in_buckets(two_by_three(), reduced_costs).tolist() == [2, 0, 1, 0, 1]


def test_columns_rank_by_what_they_serve() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.5, 0.0, 0.5, 0.0, 1.0])
    assert ranks_of_columns(two_by_three(), values).tolist() == [1, 2, 0, 1, 0]


@pytest.mark.parametrize(("rate_rps", "few"), [(0.1, True), (40.0, False)])
def test_a_small_fleet_is_searched_by_columns_and_a_large_one_by_buckets(rate_rps: float, few: bool) -> None:
    matrix = layout_of(random_case(rate_rps)).matrix
    relaxed, reduced_costs = highs._relax(matrix, 10.0)
    part = next(parts_of(matrix, relaxed.values, reduced_costs))
    kept = np.isin(matrix.shares, part)
    assert len(np.unique(matrix.share_columns[kept])) == (8 if few else COLUMNS)
    assert np.bincount(matrix.share_buckets[kept]).tolist() == [8 if few else 4] * BUCKETS
    assert set(np.flatnonzero(matrix.integer)) <= set(part)


@pytest.mark.parametrize("rate_rps", [0.1, 1.0, 10.0])
def test_an_answer_of_a_part_is_as_near_to_the_optimum_as_it_says(
    rate_rps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = layout_of(random_case(rate_rps)).matrix
    exact = minimize(matrix, 0.0, 30.0)
    monkeypatch.setattr(highs, "LARGE", 0)
    near = minimize(matrix, 0.01, 30.0)
    assert near.outcome is Outcome.PROVEN
    assert near.bound <= exact.cost + 1e-6 <= near.cost + 2e-6
    assert near.cost <= near.bound * (1 + 0.0102)
