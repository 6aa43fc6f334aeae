"""Recorded routing in the terminal and as JSON."""

from collections.abc import Sequence
from typing import Any

from hgpu.artifacts.payloads.routing import RoutingPayload
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, table


def print_routings(artifacts: Sequence[Artifact[RoutingPayload]]) -> None:
    """Print a row a batch size, and the speed at which experts are copied."""
    rows = table(
        "", ">batch", ">steps", ">prompt tokens", ">decoded", ">experts a step", ">next gate recall",
        "source", "digest",
    )  # fmt: skip
    for artifact in artifacts:
        payload = artifact.payload
        rows.add_row(
            str(payload.batch), f"{payload.steps:,}", f"{payload.prefill_tokens:,}",
            f"{payload.decode_tokens:,}", f"{payload.distinct_experts:.1f} of {payload.experts}",
            _recall(payload), str(payload.provenance), artifact.short,
        )  # fmt: skip
    out = console()
    first = artifacts[0].payload
    copies = first.copies
    out.print(
        f"[bold]{first.model.name}[/bold]: {first.experts} experts in each of {first.layers} layers, "
        f"{first.per_token} a token",
        soft_wrap=True,
    )
    out.print(rows)
    out.print(
        f"an expert has {copies.expert_bytes / 2**20:.3g} MiB, copied at {copies.bytes_per_s / 1e9:.3g} GB/s "
        f"({copies.slowest_bytes_per_s / 1e9:.3g} to {copies.fastest_bytes_per_s / 1e9:.3g}; {copies.link})",
        soft_wrap=True,
    )


def _recall(payload: RoutingPayload) -> str:
    return "-" if payload.next_gate_recall is None else " ".join(f"{r:.2f}" for r in payload.next_gate_recall)


def routings_json(artifacts: Sequence[Artifact[RoutingPayload]]) -> dict[str, Any]:
    """Return the payloads with digest and path."""
    return {
        "routings": [
            {**a.payload.model_dump(mode="json"), "digest": a.digest, "path": str(a.path)} for a in artifacts
        ]
    }
