"""Arrivals have the rate, the spread and the repeatability that their names promise."""

import numpy as np
import pytest

from hgpu.bench.arrivals import Load, replayed, schedule
from hgpu.core.errors import InputError, UnknownName
from hgpu.workloads.trace import ordered_trace


def moments(arrivals: str, burstiness: float = 1.0, seed: int = 0) -> np.ndarray:
    found = schedule(Load(arrivals, 400.0, seed, 10.0, burstiness=burstiness), "fixed:8x4").intended_s
    assert found is not None
    return found


@pytest.mark.parametrize("arrivals", ["constant", "poisson", "gamma", "ramp"])
def test_the_mean_rate_is_the_one_asked_for(arrivals: str) -> None:
    found = moments(arrivals)
    assert len(found) == pytest.approx(4000, rel=0.06)
    assert np.all(np.diff(found) >= 0) and found[0] >= 0 and found[-1] < 400
    assert np.array_equal(found, moments(arrivals))


VARIATION = [
    ("constant", 1.0, 0.0),
    ("poisson", 1.0, 1.0),
    ("gamma", 1.0, 1.0),
    ("gamma", 0.25, 2.0),
    ("gamma", 4.0, 0.5),
]


@pytest.mark.parametrize(("arrivals", "shape", "variation"), VARIATION)
def test_gaps_vary_as_they_should(arrivals: str, shape: float, variation: float) -> None:
    gaps = np.diff(moments(arrivals, shape))
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.12, abs=1e-6)


def test_a_ramp_has_a_quarter_of_its_requests_in_its_first_half() -> None:
    assert (moments("ramp") < 200).mean() == pytest.approx(0.25, abs=0.03)


def test_another_seed_sends_at_other_moments() -> None:
    assert not np.array_equal(moments("poisson", seed=0)[:9], moments("poisson", seed=1)[:9])


def test_too_short_and_unknown_are_refused() -> None:
    with pytest.raises(InputError, match="no request falls"):
        schedule(Load("gamma", 0.001, 0, 0.1), "fixed:8x4")
    with pytest.raises(UnknownName):
        schedule(Load("poison", 1.0, 0, 1.0), "fixed:8x4")


def trace(times: list[float]) -> object:
    lengths = np.arange(len(times))
    blocks = tuple((number,) for number in range(len(times)))
    return ordered_trace("t", np.array(times), lengths, lengths + 1, "made", blocks, 512)


def test_a_trace_is_stretched_cut_and_its_zero_lengths_are_counted() -> None:
    plan = replayed(trace([0, 1, 2, 4, 8]), 1.0, None)
    assert plan.intended_s.tolist() == [0, 0.5, 1, 2, 4] and plan.raised == 1
    assert plan.input_tokens.tolist() == [1, 1, 2, 3, 4] and plan.block_tokens == 512
    cut = replayed(trace([0, 1, 2, 4, 8]), None, 2.5)
    assert cut.intended_s.tolist() == [0, 1, 2] and len(cut.blocks) == 3 and cut.duration_s == 2.5


def test_a_trace_without_times_needs_a_rate() -> None:
    with pytest.raises(InputError, match="no times"):
        replayed(trace([0, 0, 0]), None, None)
    found = replayed(trace([0] * 500), 10.0, None, seed=3).intended_s
    assert found[0] == 0 and 499 / found[-1] == pytest.approx(10, rel=0.2)
