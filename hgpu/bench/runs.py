"""Load artifacts as runs: one point of load, sent once, request by request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgpu.artifacts.payloads.load import REQUESTS_FILE, LoadPayload, LoadPoint
from hgpu.artifacts.store import Artifact
from hgpu.bench.resampling import Floats
from hgpu.core.errors import ArtifactError
from hgpu.core.slo import Slo

COLUMNS = ("point", "intended_s", "first_s", "end_s", "output_tokens", "error")


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured. Latencies are of requests that were answered, TPOT of those with two tokens.

    `kept` is how many of all requests kept every objective, None without objectives; a failed one kept none.
    """

    point: str
    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    requests: int
    failed: int
    kept: int | None
    duration_s: float
    output_tok_per_s: float


def runs_of(artifact: Artifact[LoadPayload]) -> list[Run]:
    """Return a run for each point of a load test. Raises ArtifactError where requests are missing."""
    table = _requests(artifact)
    runs = []
    for number, point in enumerate(artifact.payload.points):
        chosen = table["point"] == number
        if int(chosen.sum()) != point.requests:
            raise ArtifactError(
                f"{artifact.path} doesn't fit its own requests",
                f"point '{point.name}' says {point.requests} requests, {REQUESTS_FILE} has {chosen.sum()}",
                "measure again with `hgpu bench run`",
            )
        runs.append(
            _run(point, {name: column[chosen] for name, column in table.items()}, artifact.payload.slo)
        )
    return runs


def _requests(artifact: Artifact[LoadPayload]) -> dict[str, NDArray[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = artifact.path / REQUESTS_FILE
    try:
        table = pq.read_table(path, columns=list(COLUMNS))
        return {name: table[name].to_numpy() for name in COLUMNS}
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise ArtifactError(
            f"{artifact.path} holds no requests to compare",
            f"{REQUESTS_FILE}: {error}",
            "measure again with `hgpu bench run`",
        ) from error


def _run(point: LoadPoint, rows: dict[str, NDArray[Any]], slo: Slo | None) -> Run:
    answered = np.array([not text for text in rows["error"]], dtype=bool)
    intended, first, end = (rows[name][answered].astype(float) for name in COLUMNS[1:4])
    tokens = rows["output_tokens"][answered]
    ttft, e2e, several = first - intended, end - intended, tokens > 1
    tpot = (end - first) / np.maximum(tokens - 1, 1)
    return Run(
        point=point.name,
        ttft_s=ttft,
        tpot_s=tpot[several],
        e2e_s=e2e,
        requests=point.requests,
        failed=point.requests - int(answered.sum()),
        kept=_kept(slo, ttft, np.where(several, tpot, 0.0), e2e) if slo else None,
        duration_s=point.duration_s,
        output_tok_per_s=point.output_tok_per_s,
    )


def _kept(slo: Slo, ttft: Floats, tpot: Floats, e2e: Floats) -> int:
    kept = np.ones(len(ttft), dtype=bool)
    for objective, values in ((slo.ttft, ttft), (slo.tpot, tpot), (slo.e2e, e2e)):
        if objective is not None:
            kept &= values <= objective.limit_s
    return int(kept.sum())


def by_point(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each point of load, in the order in which points come."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.point, []).append(run)
    return groups
