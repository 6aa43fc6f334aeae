import importlib.util
from pathlib import Path

import numpy as np
import pytest

from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Trace

FILE = Path(__file__).parents[2] / "benchmarks" / "autoscale" / "loads.py"
SPEC = importlib.util.spec_from_file_location("autoscale_loads", FILE)
assert SPEC is not None and SPEC.loader is not None
loads = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(loads)


@pytest.fixture(scope="module")
def hour() -> Trace:
    return poisson_trace("chat", 0.5, duration_s=3600.0, seed=4)


def test_users_play_the_whole_trace_over_and_over(hour: Trace) -> None:
    made = loads.streams(hour, 10, 86_400.0, seed=1)
    assert made.rate_rps == pytest.approx(10 * hour.rate_rps, rel=0.01)
    assert made.input_tokens.mean() == pytest.approx(hour.input_tokens.mean(), rel=0.02)
    assert made.duration_s <= 86_400.0


def test_a_day_keeps_every_request_and_its_length_and_is_four_times_as_busy_at_noon(hour: Trace) -> None:
    even = loads.streams(hour, 10, loads.DAY_S, seed=1)
    made = loads.by_day(even)
    assert made.requests == even.requests and np.array_equal(made.input_tokens, even.input_tokens)
    counts, _ = np.histogram(made.arrivals_s, np.arange(0, loads.DAY_S + 1, 3600))
    expected = 1 - loads.AMPLITUDE * np.cos(2 * np.pi * (np.arange(24) + 0.5) / 24)
    assert counts / counts.mean() == pytest.approx(expected, rel=0.1)
    first, last = loads.busiest_hour(made)
    assert 11 * 3600 <= first <= 12.5 * 3600 and last - first == 3600


def test_requests_in_step_stay_near_their_moment(hour: Trace) -> None:
    made = loads.in_step(hour, 5, 10.0, seed=1)
    assert made.requests == 5 * hour.requests
    assert abs(made.duration_s - hour.duration_s) <= 10.0


def test_the_parts_of_a_trace_are_all_of_it(hour: Trace) -> None:
    first, second = loads.part(hour, 0.0, 0.5), loads.part(hour, 0.5, 1.0)
    assert first.requests + second.requests == hour.requests
