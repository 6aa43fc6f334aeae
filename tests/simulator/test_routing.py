import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.core.workload import Bucket
from hgpu.simulator.routing import NOBODY, Routing, spread
from hgpu.workloads.histogram import bucketize

EDGES = (1, 10, 100, 1000)


def shares_of(weights: list[int]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=7).filter(any), st.integers(0, 300))
def test_no_pool_is_ever_a_request_ahead_or_behind_its_share(weights: list[int], requests: int) -> None:
    shares = shares_of(weights)
    order = np.array(spread(shares, requests), np.int64)
    assert len(order) == requests
    due = np.arange(1, requests + 1)
    for pool, share in enumerate(shares):
        taken = np.cumsum(order == pool)
        assert np.all(np.abs(taken - due * share) < 1 + 1e-9)
        assert share > 0 or not taken.any()


@given(st.lists(st.integers(0, 9), min_size=2, max_size=5).filter(any))
def test_whole_rounds_give_whole_shares(weights: list[int]) -> None:
    order = spread(shares_of(weights), 3 * sum(weights))
    assert [order.count(pool) for pool in range(len(weights))] == [3 * weight for weight in weights]


@given(st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 1200)), min_size=1, max_size=60))
def test_a_request_goes_where_the_histogram_counted_it(lengths: list[tuple[int, int]]) -> None:
    """Each bucket is sent to a pool of its own; each gets its share, and nobody gets what is outside."""
    inputs, outputs = np.array(lengths, np.int64).T
    inside = (inputs > 0) & (inputs <= 1000) & (outputs > 0) & (outputs <= 1000)
    if not inside.any():
        return
    buckets = bucketize(inputs, outputs, EDGES, EDGES)
    alone = tuple(tuple(np.eye(len(buckets))[number].tolist()) for number in range(len(buckets)))
    pools, _ = Routing(buckets, alone).pools_of(inputs, outputs)
    assert np.array_equal(pools == NOBODY, ~inside)
    for number, bucket in enumerate(buckets):
        mine = pools == number
        assert mine.sum() == round(bucket.share * inside.sum())
        assert inputs[mine].mean() == pytest.approx(bucket.input_tokens)
        assert outputs[mine].mean() == pytest.approx(bucket.output_tokens)


def test_lengths_on_an_edge_are_in_the_bucket_below() -> None:
    buckets = (Bucket(0, 10, 0, 10, 5, 5, 0.5), Bucket(10, 20, 0, 10, 15, 5, 0.5))
    routing = Routing(buckets, ((1.0, 0.0), (0.0, 1.0)))
    inputs, outputs = np.array([1, 10, 11, 20, 21, 5]), np.array([1, 10, 10, 1, 1, 11])
    assert routing.pools_of(inputs, outputs)[0].tolist() == [0, 0, 1, 1, NOBODY, NOBODY]


@pytest.mark.parametrize("row", [(0.5, 0.4), (1.5, -0.5), (0.0, 0.0)])
def test_shares_that_would_lose_requests_are_refused(row: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"in≤10 out≤10"):
        Routing((Bucket(0, 10, 0, 10, 5, 5, 1.0),), (row,))


def test_tiers_are_parts_of_every_bucket_with_shares_of_their_own() -> None:
    buckets = (Bucket(0, 10, 0, 10, 5, 5, 0.5), Bucket(10, 20, 0, 10, 15, 5, 0.5))
    routing = Routing(buckets, ((1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)), (0.75, 0.25))
    inputs = np.array([5] * 8 + [15] * 16)
    pools, tiers = routing.pools_of(inputs, np.full(24, 5))
    assert np.bincount(tiers).tolist() == [18, 6]
    assert set(pools[tiers == 0].tolist()) == {0}
    assert pools[(tiers == 1) & (inputs == 5)].tolist() == [1, 1]
    assert sorted(pools[(tiers == 1) & (inputs == 15)].tolist()) == [0, 0, 1, 1]
