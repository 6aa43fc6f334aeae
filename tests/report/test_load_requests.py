"""Latencies over time and their distributions are those of the requests."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report.cases import RATES, SECONDS, parquet, saved_load

from hgpu.artifacts.payloads.load import REQUESTS_FILE
from hgpu.core.errors import ArtifactError
from hgpu.report.html.load_requests import PointRequests, distribution, requests_of, windows


def requests(ttft_s: list[float]) -> PointRequests:
    array = np.array(ttft_s)
    return PointRequests(0, np.arange(array.size) * 0.1, array, np.full(array.size, np.nan), 0)


def test_every_request_is_answered_or_failed(tmp_path: Path) -> None:
    found = requests_of(saved_load(tmp_path))
    assert [one.intended_s.size + one.failed for one in found] == [rate * SECONDS for rate in RATES]
    assert sum(one.failed for one in found) > 0
    assert found[0].tpot_s == pytest.approx(0.4 / 19)


def test_one_token_has_no_tpot(tmp_path: Path) -> None:
    artifact = saved_load(tmp_path)
    row = {"point": 0, "intended_s": 1.0, "first_s": 1.5, "end_s": 1.5, "output_tokens": 1, "error": ""}
    (artifact.path / REQUESTS_FILE).write_bytes(parquet([row]))
    (one,) = requests_of(artifact)
    assert np.isnan(one.tpot_s).all() and one.ttft_s == pytest.approx(0.5)
    assert distribution(one.tpot_s) == []


def test_a_damaged_file_is_an_error_of_the_users(tmp_path: Path) -> None:
    artifact = saved_load(tmp_path)
    (artifact.path / REQUESTS_FILE).write_bytes(b"no parquet")
    with pytest.raises(ArtifactError):
        requests_of(artifact)


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=400))
def test_windows_hold_every_request_once(ttft_s: list[float]) -> None:
    rows = windows(requests(ttft_s))
    assert sum(row.requests for row in rows) == len(ttft_s)
    assert all(row.p50_s <= row.p90_s <= row.p99_s for row in rows)
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(rows))


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=400))
def test_a_distribution_rises_from_the_fastest_to_the_slowest(ttft_s: list[float]) -> None:
    rows = list(distribution(np.array(ttft_s)))
    assert rows == sorted(rows)
    assert rows[0] == (min(ttft_s), 0.0) and rows[-1] == (max(ttft_s), 1.0)
