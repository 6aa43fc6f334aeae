"""Traces: order, shape and rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.workloads.trace import Trace, ordered_trace


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_sorts_shifts_and_carries_every_column() -> None:
    trace = ordered_trace(
        "t", np.array([7.0, 5.0, 9.0]), ints(70, 50, 90), ints(7, 5, 9), "test", ((7,), (5, 6), ()), 512
    )
    assert trace.arrivals_s.tolist() == [0.0, 2.0, 4.0]
    assert trace.input_tokens.tolist() == [50, 70, 90]
    assert trace.output_tokens.tolist() == [5, 7, 9]
    assert trace.prefix_blocks == ((5, 6), (7,), ())
    assert (trace.requests, trace.duration_s, trace.rate_rps) == (3, 4.0, 0.5)


def test_ties_keep_their_order() -> None:
    trace = ordered_trace("t", np.array([1.0, 0.0, 1.0]), ints(1, 2, 3), ints(1, 1, 1), "test")
    assert trace.input_tokens.tolist() == [2, 1, 3]


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 9)), min_size=1, max_size=30))
def test_nothing_is_lost_in_sorting(rows: list[tuple[float, int]]) -> None:
    times = np.array([time for time, _ in rows])
    lengths = ints(*(length for _, length in rows))
    trace = ordered_trace("t", times, lengths, lengths, "test")
    assert trace.arrivals_s[0] == 0
    assert sorted(trace.input_tokens.tolist()) == sorted(lengths.tolist())
    assert trace.duration_s == times.max() - times.min()


@pytest.mark.parametrize("times", [[3.0], [2.0, 2.0]])
def test_no_time_means_no_rate(times: list[float]) -> None:
    lengths = ints(*range(len(times)))
    with pytest.raises(InputError, match="no rate"):
        _ = ordered_trace("t", np.array(times), lengths, lengths, "test").rate_rps


@pytest.mark.parametrize(
    ("times", "inputs", "outputs", "blocks"),
    [
        ([], ints(), ints(), None),
        ([0.0], ints(1, 2), ints(1), None),
        ([0.0], ints(1), ints(), None),
        ([0.0], ints(1), ints(1), ((1,), (2,))),
        ([1.0, 2.0], ints(1, 1), ints(1, 1), None),
        ([0.0, 2.0, 1.0], ints(1, 1, 1), ints(1, 1, 1), None),
        ([0.0, float("nan")], ints(1, 1), ints(1, 1), None),
    ],
)
def test_refuses_columns_that_do_not_belong_together(
    times: list[float], inputs: np.ndarray, outputs: np.ndarray, blocks: tuple[tuple[int, ...], ...] | None
) -> None:
    with pytest.raises(InputError, match="malformed"):
        Trace("t", np.array(times), inputs, outputs, "test", blocks)


def test_columns_are_read_only() -> None:
    trace = ordered_trace("t", np.array([0.0]), ints(1), ints(1), "test")
    with pytest.raises(ValueError, match="read-only"):
        trace.input_tokens[0] = 2
