"""Histograms: mass is conserved, order is irrelevant, nothing vanishes."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.workloads.histogram import (
    DEFAULT_EDGES,
    Edges,
    bucketize,
    workload_from_lengths,
    workload_from_trace,
)
from hgpu.workloads.trace import Trace, ordered_trace

EDGES = Edges((1, 10, 100, 1000), (1, 5, 50))

lengths = st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 80)), min_size=1, max_size=60)
edge_lists = st.sets(st.integers(0, 1500), min_size=2, max_size=6).map(sorted)


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def trace_of(rows: list[tuple[int, int]]) -> Trace:
    return ordered_trace("t", np.arange(len(rows), dtype=float), *columns(rows), "test")


@given(lengths, edge_lists, edge_lists)
def test_mass_is_conserved(
    rows: list[tuple[int, int]], input_edges: list[int], output_edges: list[int]
) -> None:
    inside = [(i, o) for i, o in rows if 0 < i <= input_edges[-1] and 0 < o <= output_edges[-1]]
    buckets = bucketize(*columns(rows), input_edges, output_edges)
    assert bool(buckets) == bool(inside)
    assume(inside)
    assert sum(b.share for b in buckets) == pytest.approx(1)
    assert sum(b.share * b.input_tokens for b in buckets) == pytest.approx(np.mean([i for i, _ in inside]))
    assert sum(b.share * b.output_tokens for b in buckets) == pytest.approx(np.mean([o for _, o in inside]))


@given(lengths)
def test_buckets_equal_a_count_by_hand(rows: list[tuple[int, int]]) -> None:
    inside = [(i, o) for i, o in rows if 0 < i <= 1000 and 0 < o <= 50]
    for bucket in bucketize(*columns(rows), EDGES.input, EDGES.output):
        members = [
            (i, o)
            for i, o in inside
            if bucket.input_low < i <= bucket.input_high and bucket.output_low < o <= bucket.output_high
        ]
        assert bucket.share == pytest.approx(len(members) / len(inside))
        assert bucket.input_tokens == pytest.approx(np.mean([i for i, _ in members]))
        assert bucket.output_tokens == pytest.approx(np.mean([o for _, o in members]))


@given(lengths, st.randoms(use_true_random=False))
def test_order_does_not_matter(rows: list[tuple[int, int]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert bucketize(*columns(rows), EDGES.input, EDGES.output) == bucketize(
        *columns(shuffled), EDGES.input, EDGES.output
    )


def test_edges_are_open_below_and_closed_above() -> None:
    rows = [(1, 1), (10, 5), (11, 6), (100, 50), (101, 50)]
    bounds = [
        (b.input_low, b.input_high, b.output_low, b.output_high, round(b.share, 3))
        for b in bucketize(*columns(rows), EDGES.input, EDGES.output)
    ]
    assert bounds == [(0, 10, 0, 5, 0.4), (10, 100, 5, 50, 0.4), (100, 1000, 5, 50, 0.2)]


def test_outside_is_counted() -> None:
    workload = workload_from_trace(trace_of([(5, 5), (0, 5), (5, 0), (1001, 5), (5, 51)]), edges=EDGES)
    assert workload.outside_share == pytest.approx(0.8)
    assert workload.requests == 5
    assert sum(b.share for b in workload.buckets) == pytest.approx(1)


def test_rate_is_the_trace_rate_or_the_given_one() -> None:
    trace = trace_of([(5, 5)] * 3)
    assert workload_from_trace(trace).rate_rps == trace.rate_rps == 1.0
    assert workload_from_trace(trace, rate_rps=7).rate_rps == 7
    burst = ordered_trace("t", np.zeros(2), *columns([(5, 5)] * 2), "test")
    assert workload_from_trace(burst, rate_rps=7).rate_rps == 7
    with pytest.raises(InputError, match="no rate"):
        workload_from_trace(burst)


@pytest.mark.parametrize("rate_rps", [0, -1, float("nan"), float("inf")])
def test_bad_rate(rate_rps: float) -> None:
    with pytest.raises(InputError, match="bad rate"):
        workload_from_trace(trace_of([(5, 5)]), rate_rps=rate_rps)


def test_nothing_inside() -> None:
    with pytest.raises(InputError, match="fits a bucket"):
        workload_from_trace(trace_of([(0, 5), (5, 0)]))
    assert bucketize(*columns([]), EDGES.input, EDGES.output) == ()


@pytest.mark.parametrize("edges", [(), (5,), (5, 5), (10, 5), (-1, 5)])
def test_bad_edges(edges: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="bad input edges"):
        Edges(edges, (1, 5))
    with pytest.raises(InputError, match="bad output edges"):
        bucketize(*columns([(1, 1)]), (1, 5), edges)


def test_named_lengths_are_reproducible() -> None:
    first = workload_from_lengths("arena", 4.0, requests=3000, seed=1)
    assert first == workload_from_lengths("arena", 4.0, requests=3000, seed=1)
    assert first != workload_from_lengths("arena", 4.0, requests=3000, seed=2)
    assert (first.name, first.rate_rps, first.requests) == ("arena", 4.0, 3000)
    assert "seed 1" in first.source and "LMSYS" in first.source


def test_named_lengths_keep_their_means() -> None:
    workload = workload_from_lengths("longdata", 1.0)
    assert workload.mean_input_tokens == pytest.approx(5905, rel=0.03)
    assert workload.mean_output_tokens == pytest.approx(180, rel=0.03)
    assert workload.outside_share == 0


def test_fixed_lengths_are_one_bucket() -> None:
    (bucket,) = workload_from_lengths("fixed:512x128", 1.0, requests=10).buckets
    assert (bucket.input_tokens, bucket.output_tokens, bucket.share) == (512, 128, 1)
    assert bucket.input_high in DEFAULT_EDGES.input and bucket.name == "in≤1000 out≤250"


def test_no_requests() -> None:
    with pytest.raises(InputError, match="0 requests"):
        workload_from_lengths("arena", 1.0, requests=0)
