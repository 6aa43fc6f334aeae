import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.workload import Bucket, Workload
from hgpu.runtime.control.marginals import Histogram, fitted, regridded
from hgpu.runtime.control.window import LengthWindow
from hgpu.workloads.histogram import bucketize

SHORT = Bucket(0, 100, 0, 50, 60.0, 20.0, 0.75, 140)
LONG = Bucket(100, 1000, 50, 400, 500.0, 200.0, 0.25, 1300)
PRIOR = Workload("plan", 4.0, (SHORT, LONG), 1000, "a plan")
LENGTHS = st.lists(st.tuples(st.integers(1, 1000), st.integers(1, 400)), max_size=80)


def window(prior_requests: float = 100.0) -> LengthWindow:
    return LengthWindow(PRIOR, half_life_s=60.0, prior_requests=prior_requests)


def test_before_anything_is_seen_it_is_the_plan() -> None:
    made = window().workload(9.0)
    assert made.buckets == (SHORT, LONG) and made.rate_rps == 9.0


@given(LENGTHS, st.floats(0, 1e5))
def test_a_planned_bucket_never_goes_and_shares_make_up_one(
    lengths: list[tuple[int, int]], passed_s: float
) -> None:
    made = window()
    made.add(lengths)
    made.fade(passed_s)
    buckets = {(b.input_high, b.output_high): b for b in made.workload(1.0).buckets}
    assert sum(b.share for b in buckets.values()) == pytest.approx(1.0)
    assert buckets[100, 50].share >= 0.75 * 100 / (100 + len(lengths)) - 1e-9
    assert buckets[1000, 400].share >= 0.25 * 100 / (100 + len(lengths)) - 1e-9
    for b in buckets.values():
        assert b.input_low < b.input_tokens <= b.input_high + 1e-6
        assert b.output_low < b.output_tokens <= b.output_high + 1e-6


@given(LENGTHS.filter(bool))
def test_without_a_prior_it_is_the_histogram_of_what_was_seen(lengths: list[tuple[int, int]]) -> None:
    made = window(prior_requests=1e-12)
    made.add(lengths)
    inputs, outputs = np.array(lengths, np.int64).T
    expected = bucketize(inputs, outputs, (0, 100, 1000), (0, 50, 400))
    seen = [b for b in made.workload(1.0).buckets if b.share > 1e-6]
    assert [(b.input_high, b.output_high) for b in seen] == [(b.input_high, b.output_high) for b in expected]
    for one, other in zip(seen, expected, strict=True):
        assert one.share == pytest.approx(other.share)
        assert one.input_tokens == pytest.approx(other.input_tokens)


def test_what_was_seen_fades_by_half() -> None:
    made = window()
    made.add([(500, 20)] * 100)
    shares = []
    for now_s in (0.0, 60.0, 120.0):
        made.fade(now_s)
        shares.append({(b.input_high, b.output_high): b.share for b in made.workload(1.0).buckets})
    assert [round(row[1000, 50], 3) for row in shares] == [0.5, 0.333, 0.2]


def test_requests_longer_than_any_bucket_are_counted_as_outside() -> None:
    made = window(10.0)
    made.add([(5000, 10)] * 10)
    assert made.workload(1.0).outside_share == pytest.approx(0.5)


def test_a_bucket_of_vllm_is_split_by_its_logarithm() -> None:
    histogram = Histogram((10.0, 1000.0, float("inf")), (4.0, 8.0, 2.0), 0.0)
    assert regridded(histogram, [10, 100, 1000]).tolist() == pytest.approx([4.0, 4.0, 6.0])


@given(
    st.lists(st.floats(0.1, 9), min_size=6, max_size=6),
    st.lists(st.floats(0.1, 9), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 9), min_size=2, max_size=2),
)
def test_a_fitted_joint_has_both_margins(seed: list[float], rows: list[float], columns: list[float]) -> None:
    made = fitted(np.array(seed).reshape(3, 2), np.array(rows), np.array(columns))
    assert made.sum(1) == pytest.approx(np.array(rows), rel=1e-3)
    assert made.sum(0) == pytest.approx(np.array(columns) * sum(rows) / sum(columns), rel=1e-3)


def test_histograms_that_are_the_plan_change_nothing() -> None:
    made = window()
    edges = (100.0, 1000.0, float("inf"))
    inputs = Histogram(edges, (75.0, 25.0, 0.0), 75 * 60.0 + 25 * 500.0)
    outputs = Histogram((50.0, 400.0, float("inf")), (75.0, 25.0, 0.0), 75 * 20.0 + 25 * 200.0)
    made.add_histograms(inputs, outputs)
    buckets = {(b.input_high, b.output_high): b for b in made.workload(1.0).buckets if b.share > 1e-3}
    assert buckets[100, 50].share == pytest.approx(0.75, abs=0.01)
    assert buckets[100, 50].input_tokens == pytest.approx(60.0, rel=0.05)


def test_tokens_that_were_counted_move_the_means_inside_their_bounds() -> None:
    made = window(1.0)
    edges = (100.0, 1000.0, float("inf"))
    made.add_histograms(
        Histogram(edges, (0.0, 50.0, 0.0), 50 * 900.0), Histogram((50.0, 400.0), (0.0, 50.0), 50 * 200.0)
    )
    assert made.workload(1.0).mean_input_tokens == pytest.approx(900.0, rel=0.05)
