"""Poisson replay: the rate, the gaps and the lengths."""

import numpy as np
import pytest

from hgpu.core.errors import InputError, UnknownName
from hgpu.workloads.histogram import workload_from_lengths, workload_from_trace
from hgpu.workloads.lengths import find_lengths
from hgpu.workloads.replay import poisson_trace


@pytest.mark.parametrize("extent", [{"requests": 40_000}, {"duration_s": 10_000.0}])
def test_gaps_are_exponential_at_the_rate(extent: dict[str, float]) -> None:
    trace = poisson_trace("fixed:100x10", 4.0, seed=2, **extent)  # type: ignore[arg-type]
    gaps = np.diff(trace.arrivals_s)
    assert trace.rate_rps == pytest.approx(4.0, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)
    assert np.median(gaps) == pytest.approx(np.log(2) / 4, rel=0.03)


def test_extent_is_what_was_asked() -> None:
    assert poisson_trace("arena", 4.0, requests=17).requests == 17
    assert poisson_trace("arena", 4.0, requests=1).duration_s == 0
    assert poisson_trace("arena", 4.0, duration_s=30.0).duration_s <= 30


@pytest.mark.parametrize(
    "extent",
    [
        {},
        {"requests": 5, "duration_s": 1.0},
        {"requests": 0},
        {"duration_s": 0.0},
        {"duration_s": float("inf")},
    ],
)
def test_extent_must_be_one_of_two(extent: dict[str, float]) -> None:
    with pytest.raises(InputError, match="how long"):
        poisson_trace("arena", 4.0, **extent)  # type: ignore[arg-type]


def test_same_seed_same_trace() -> None:
    first, again, other = (poisson_trace("mixed", 4.0, requests=50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.arrivals_s, again.arrivals_s)
    assert np.array_equal(first.input_tokens, again.input_tokens)
    assert not np.array_equal(first.arrivals_s, other.arrivals_s)
    assert first.name == "mixed@4rps" and "seed 1" in first.source


def test_a_name_and_its_distribution_are_the_same() -> None:
    by_name, by_value = (
        poisson_trace(source, 4.0, requests=50) for source in ("arxiv", find_lengths("arxiv"))
    )
    assert np.array_equal(by_name.output_tokens, by_value.output_tokens)


def test_workload_replays_with_its_own_histogram() -> None:
    workload = workload_from_lengths("mixed", 4.0)
    replayed = workload_from_trace(poisson_trace(workload, 4.0, requests=100_000))
    assert replayed.outside_share == 0
    assert replayed.mean_input_tokens == pytest.approx(workload.mean_input_tokens, rel=0.03)
    assert replayed.mean_output_tokens == pytest.approx(workload.mean_output_tokens, rel=0.03)
    shares = {bucket.name: bucket.share for bucket in workload.buckets}
    assert all(bucket.share == pytest.approx(shares[bucket.name], abs=0.01) for bucket in replayed.buckets)


def test_workload_lengths_are_spread_but_exact_ones_stay_exact() -> None:
    spread = poisson_trace(workload_from_lengths("uniform:500-1000x10-20", 1.0), 1.0, requests=500)
    assert len(set(spread.input_tokens.tolist())) > 50
    exact = poisson_trace(workload_from_lengths("fixed:500x25", 1.0), 1.0, requests=500)
    assert set(exact.input_tokens.tolist()) == {500} and set(exact.output_tokens.tolist()) == {25}


@pytest.mark.parametrize("rate_rps", [0.0, -1.0, float("nan")])
def test_bad_rate(rate_rps: float) -> None:
    with pytest.raises(InputError, match="bad rate"):
        poisson_trace("arena", rate_rps, requests=5)


def test_bad_seed_and_name() -> None:
    with pytest.raises(InputError, match="bad seed"):
        poisson_trace("arena", 1.0, requests=5, seed=-1)
    with pytest.raises(UnknownName):
        poisson_trace("aren", 1.0, requests=5)
