"""Artifacts to draw: a plan with everything, and a load test with its requests."""

import io
from pathlib import Path

import numpy as np

from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.load import REQUESTS_FILE, LoadPayload, LoadPoint, Selftest, Spread
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.payloads.simulation import SimulationPayload
from hgpu.artifacts.store import Artifact, Draft, load, save
from hgpu.core.slo import Objective, Slo

GOLDEN = Path(__file__).parents[1] / "artifacts" / "golden"
RATES = (2, 8, 24)
SECONDS = 60


def saved_plan(root: Path, **changes: object) -> Artifact[PlanPayload]:
    """Save the golden plan, with some of its payload changed."""
    payload = load(GOLDEN / "plan.v2").payload.model_copy(update=changes)
    return save(root, Draft("plan", "case", payload))


def saved_simulation(root: Path, plan: Artifact[PlanPayload]) -> Artifact[SimulationPayload]:
    """Save the golden simulation as one of `plan`."""
    payload = load(GOLDEN / "simulation.v1").payload
    return save(root, Draft("simulation", "case", payload, inputs=[plan.as_input("plan")]))


def saved_load(root: Path, model: str = "tiny") -> Artifact[LoadPayload]:
    """Save a load test of three points, the last of them void, with a row a request."""
    rng = np.random.default_rng(0)
    points, rows = [], []
    for number, rate in enumerate(RATES):
        made = [_request(rng, number, place / rate) for place in range(rate * SECONDS)]
        rows += made
        points.append(_point(rate, len(made), valid=rate != RATES[-1]))
    payload = LoadPayload(
        url="http://127.0.0.1:8000",
        api="completions",
        model=model,
        lengths="fixed:100x20",
        slo=Slo(ttft=Objective(0.5, 95)),
        points=points,
        selftest=Selftest(
            requests_per_s_and_core=5000, added_ttft_p50_s=1e-4, added_ttft_p99_s=1e-3, machine="2 cores"
        ),
        comparability={"engine": "vllm", "gpu": ""},
    )
    return save(root, Draft("load", "case", payload, files={REQUESTS_FILE: parquet(rows)}))


def parquet(rows: list[dict[str, object]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


def _request(rng: np.random.Generator, point: int, intended_s: float) -> dict[str, object]:
    first_s = intended_s + float(rng.lognormal(-2, 0.4))
    failed = rng.uniform() < 0.02
    return {
        "point": point, "intended_s": intended_s, "sent_s": intended_s, "first_s": first_s,
        "end_s": first_s + 0.4, "input_tokens": 100, "output_tokens": 20, "longest_gap_s": 0.03,
        "error": "HTTP 503" if failed else "",
    }  # fmt: skip


def _point(rate: int, requests: int, valid: bool) -> LoadPoint:
    spread = Spread(mean=0.2, p50=0.18, p90=0.3, p95=0.33, p99=0.4)
    return LoadPoint(
        name=f"{rate} requests/s", arrivals="constant", target_rps=rate, concurrency=None, seed=0,
        duration_s=SECONDS, requests=requests, errors=0, error_kinds={}, achieved_rps=rate,
        input_tokens=100 * requests, output_tokens=20 * requests, output_tok_per_s=20.0 * rate, ttft_s=spread,
        ttft_from_send_s=spread, tpot_s=spread, itl_s=spread, e2e_s=spread,
        attainment={"ttft": 0.98, "all": 0.97}, goodput_rps=0.97 * rate, harness_lag_p50_s=1e-4,
        harness_lag_p99_s=1e-3 if valid else 0.05,
        validity=Validity(valid=valid, reasons=[] if valid else ["harness lag p99 is 50 ms"]),
    )  # fmt: skip
