"""Load artifacts whose truth is known, saved as `hgpu bench run` saves them."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.load import REQUESTS_FILE, LoadPayload, LoadPoint, Spread
from hgpu.artifacts.store import Artifact, Draft, save
from hgpu.core.slo import Objective, Slo

KEYS = {"engine": "vllm 0.32.0", "model": "tiny", "model_revision": "abc", "workload": "w0", "gpu": ""}
SLO = Slo(ttft=Objective(0.35), tpot=Objective(0.05))


@dataclass(frozen=True, slots=True)
class Load:
    """What a made run is like: `slower` multiplies its latencies, `failed` of its requests get no answer."""

    slower: float = 1.0
    requests: int = 200
    failed: int = 0
    run_sd: float = 0.002
    slo: Slo | None = SLO
    points: Sequence[str] = ("5 rps",)
    keys: Mapping[str, str] = field(default_factory=lambda: KEYS)
    trouble: str = ""  # why its points aren't valid


def save_load(root: Path, number: int, load: Load = Load()) -> Artifact[LoadPayload]:
    """Save a load test of its own noise (by `number`) under `root`."""
    rng = np.random.default_rng([number, round(load.slower * 1000)])
    rows = [_requests(load, index, rng) for index in range(len(load.points))]
    table = pa.concat_tables([pa.table(row) for row in rows])
    stream = io.BytesIO()
    pq.write_table(table, stream)
    payload = LoadPayload(
        url="http://127.0.0.1:8000",
        api="completions",
        model="tiny",
        lengths="fixed:100x20",
        slo=load.slo,
        points=[_point(name, load, number) for name in load.points],
        selftest=None,
        comparability=dict(load.keys),
    )
    return save(root, Draft("load", "made", payload, files={REQUESTS_FILE: stream.getvalue()}))


def save_arm(root: Path, numbers: Sequence[int], load: Load = Load()) -> str:
    """Save a run for each number, and return them as one argument."""
    return ",".join(save_load(root, number, load).digest[:12] for number in numbers)


def _requests(load: Load, point: int, rng: np.random.Generator) -> dict[str, object]:
    n = load.requests
    factor = load.slower * np.exp(load.run_sd * rng.normal())
    intended = np.arange(n) / 5.0
    first = intended + factor * 0.2 * np.exp(0.05 * rng.normal(size=n))
    end = first + 19 * factor * 0.03 * np.exp(0.02 * rng.normal(size=n))
    error = ["HTTP 500"] * load.failed + [""] * (n - load.failed)
    return {
        "point": [point] * n,
        "intended_s": intended,
        "sent_s": intended + 1e-4,
        "first_s": first,
        "end_s": end,
        "input_tokens": [100] * n,
        "output_tokens": [20] * n,
        "longest_gap_s": [0.05] * n,
        "error": error,
    }


def _point(name: str, load: Load, seed: int) -> LoadPoint:
    spread = Spread(mean=0.2, p50=0.2, p90=0.2, p95=0.2, p99=0.2)
    return LoadPoint(
        name=name,
        arrivals="constant",
        target_rps=5.0,
        concurrency=None,
        seed=seed,
        duration_s=load.requests / 5.0,
        requests=load.requests,
        errors=load.failed,
        error_kinds={"HTTP 500": load.failed} if load.failed else {},
        achieved_rps=5.0,
        input_tokens=100 * load.requests,
        output_tokens=20 * load.requests,
        output_tok_per_s=100.0,
        ttft_s=spread,
        ttft_from_send_s=spread,
        tpot_s=spread,
        itl_s=spread,
        e2e_s=spread,
        attainment={"all": 1.0},
        goodput_rps=5.0,
        harness_lag_p50_s=1e-4,
        harness_lag_p99_s=1e-3,
        validity=Validity(valid=not load.trouble, reasons=[load.trouble] if load.trouble else []),
    )
