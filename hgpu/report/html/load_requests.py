"""The requests of a load test, read from its parquet file: latencies over time and their distributions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hgpu.artifacts.payloads.load import REQUESTS_FILE, LoadPayload
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import ArtifactError

Array = NDArray[np.float64]
COLUMNS = ("point", "intended_s", "first_s", "end_s", "output_tokens", "error")
PER_WINDOW = 50  # requests, so that a p90 has something above it
MOST_WINDOWS = 40
QUANTILES = np.concatenate([np.linspace(0, 0.98, 99), np.linspace(0.981, 1, 20)])


@dataclass(frozen=True, slots=True)
class PointRequests:
    """The requests of one point that were answered, by intended time; `failed` of all failed.

    TPOT is nan where a request has one token.
    """

    point: int
    intended_s: Array
    ttft_s: Array
    tpot_s: Array
    failed: int


@dataclass(frozen=True, slots=True)
class Window:
    """Percentiles of TTFT over the requests that were due in [`start_s`, `end_s`)."""

    start_s: float
    end_s: float
    requests: int
    p50_s: float
    p90_s: float
    p99_s: float


def requests_of(artifact: Artifact[LoadPayload]) -> list[PointRequests]:
    """Return the requests of each point, none where the artifact keeps none. Raises ArtifactError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = artifact.path / REQUESTS_FILE
    if not path.is_file():
        return []
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
        columns = {name: table[name].to_numpy() for name in COLUMNS}
    except (pa.ArrowException, KeyError) as error:
        raise ArtifactError("the load test's requests can't be read", str(error), "run it again") from error
    points = np.unique(columns["point"])
    return [
        _one(int(point), {n: c[columns["point"] == point] for n, c in columns.items()}) for point in points
    ]


def _one(point: int, columns: dict[str, Array]) -> PointRequests:
    answered = columns["error"] == ""
    order = np.argsort(columns["intended_s"][answered], kind="stable")
    intended, first, end, tokens = (
        columns[name][answered][order].astype(float)
        for name in ("intended_s", "first_s", "end_s", "output_tokens")
    )
    tpot = np.where(tokens > 1, (end - first) / np.maximum(tokens - 1, 1), np.nan)
    return PointRequests(point, intended, first - intended, tpot, int(np.sum(~answered)))


def windows(requests: PointRequests) -> list[Window]:
    """Return percentiles over time, in windows of equal length with PER_WINDOW requests in the mean."""
    if not requests.intended_s.size:
        return []
    count = int(np.clip(requests.intended_s.size // PER_WINDOW, 1, MOST_WINDOWS))
    edges = np.linspace(0.0, float(requests.intended_s[-1]), count + 1)
    edges[-1] = np.nextafter(edges[-1], np.inf)
    places = np.searchsorted(edges, requests.intended_s, side="right") - 1
    made = []
    for place in range(count):
        inside = requests.ttft_s[places == place]
        if inside.size:
            p50, p90, p99 = (float(value) for value in np.quantile(inside, (0.5, 0.9, 0.99)))
            made.append(Window(float(edges[place]), float(edges[place + 1]), inside.size, p50, p90, p99))
    return made


def distribution(seconds: Array) -> Sequence[tuple[float, float]]:
    """Return (seconds, share of requests at most that long), finer where the slow ones are."""
    known = seconds[~np.isnan(seconds)]
    if not known.size:
        return []
    return list(zip(np.quantile(known, QUANTILES).tolist(), QUANTILES.tolist(), strict=True))
