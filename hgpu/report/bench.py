"""Load tests in the terminal and as JSON."""

from typing import Any

from hgpu.artifacts.payloads.bench import BenchPayload, Quantiles
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, ms, rps, table


def print_bench(artifact: Artifact[BenchPayload]) -> None:
    """Print predicted beside measured."""
    payload = artifact.payload
    out = console()
    for row in payload.rows:
        out.print(
            f"[bold]{row.pool}[/bold] at {rps(row.achieved_rps)} requests/s (planned {rps(row.rate_rps)}): "
            f"{row.requests} requests, {row.errors} errors, harness lag p99 {ms(row.harness_lag_p99_s)} ms",
            soft_wrap=True,
        )
        rows = table("", "ms", ">predicted mean", ">measured mean", ">off by", ">p50", ">p90", ">p99")
        _line(rows, "TTFT", row.predicted_ttft_mean_s, row.ttft_s)
        _line(rows, "TPOT", row.predicted_tpot_mean_s, row.tpot_s)
        out.print(rows)
    for reason in artifact.manifest.validity.reasons:
        out.print(f"INVALID: {reason}", markup=False, soft_wrap=True)
    out.print(f"bench {artifact.short}  {artifact.path}", soft_wrap=True)


def bench_json(artifact: Artifact[BenchPayload]) -> dict[str, Any]:
    """Return the payload with digest, path and validity."""
    return {
        **artifact.payload.model_dump(mode="json"),
        "digest": artifact.digest,
        "path": str(artifact.path),
        "validity": artifact.manifest.validity.model_dump(),
    }


def _line(rows: Any, name: str, predicted_s: float, measured: Quantiles) -> None:
    off = (predicted_s - measured.mean) / measured.mean
    quantiles = (ms(measured.p50), ms(measured.p90), ms(measured.p99))
    rows.add_row(name, ms(predicted_s), ms(measured.mean), f"{off:+.0%}", *quantiles)
