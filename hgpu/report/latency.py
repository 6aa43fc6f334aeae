"""Latency models in the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from hgpu.artifacts.payloads.latency import LatencyPayload
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, table


def print_fits(artifacts: Sequence[Artifact[LatencyPayload]]) -> None:
    """Print the cross-validated error of each fit, by phase, and its coefficients."""
    console().print(errors_table(artifacts))
    console().print(coefficients_table(artifacts))


def errors_table(artifacts: Sequence[Artifact[LatencyPayload]]) -> Table:
    """Return a row a fit: its cross-validated error, by phase."""
    phases = ("prefill", "decode", "mixed")
    rows = table(
        "cross-validated error of a step: median (p90)",
        "operating point", *(f">{p}" for p in phases), ">all", ">noise", ">KV tokens", "source", "digest",
    )  # fmt: skip
    for artifact in artifacts:
        payload = artifact.payload
        by_phase = {row.phase: f"{row.median:.1%} ({row.p90:.1%})" for row in payload.errors}
        latency = payload.latency
        rows.add_row(
            payload.point.name,
            *(by_phase.get(p, "-") for p in phases),
            f"{latency.median_error:.1%} ({latency.p90_error:.1%})",
            f"{latency.noise:.1%}",
            f"{latency.kv_capacity_tokens:,}",
            str(latency.provenance),
            artifact.short,
        )
    return rows


def coefficients_table(artifacts: Sequence[Artifact[LatencyPayload]]) -> Table:
    """Return a row a fit: the coefficients of its step model."""
    rows = table(
        "\nstep model", "operating point", ">overhead ms", ">weights ms", ">knee tokens", ">sharpness",
        ">µs/1K pairs", ">µs/1K KV tokens", ">µs/sequence", ">prefill ms",
    )  # fmt: skip
    for artifact in artifacts:
        step = artifact.payload.latency.step
        rows.add_row(
            artifact.payload.point.name,
            f"{step.overhead_s * 1e3:.2f}",
            f"{step.linear_s * 1e3:.2f}",
            f"{step.knee_tokens:.0f}",
            f"{step.sharpness:g}",
            f"{step.pair_s * 1e9:.2f}",
            f"{step.kv_s * 1e9:.2f}",
            f"{step.seq_s * 1e6:.1f}",
            f"{step.prefill_s * 1e3:.2f}",
        )
    return rows


def fits_json(artifacts: Sequence[Artifact[LatencyPayload]]) -> dict[str, Any]:
    """Return the payloads with digest and path."""
    return {
        "fits": [
            {
                **artifact.payload.model_dump(mode="json"),
                "digest": artifact.digest,
                "path": str(artifact.path),
            }
            for artifact in artifacts
        ]
    }
