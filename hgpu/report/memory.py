"""Memory profiles in the terminal and as JSON."""

from typing import Any

from rich.table import Table

from hgpu.artifacts.payloads.memory import AdamRow, BandwidthRow, CopyRow, MemoryPayload
from hgpu.artifacts.store import Artifact
from hgpu.core.memory import MemoryNode
from hgpu.report.output import console, table


def print_memory(artifact: Artifact[MemoryPayload]) -> None:
    """Print a table a subject, what wasn't measured, and whether the figures are valid."""
    out, payload, manifest = console(), artifact.payload, artifact.manifest
    out.print(nodes_table(payload.nodes))
    if payload.bandwidth:
        out.print(bandwidth_table(payload.bandwidth))
    if payload.adam:
        out.print(adam_table(payload.adam))
    if payload.copies:
        out.print(copies_table(payload.copies))
    for note in payload.notes:
        out.print(note, markup=False, soft_wrap=True)
    reasons = "; ".join(manifest.validity.reasons)
    state = "valid" if manifest.validity.valid else f"INVALID: {reasons}"
    out.print(
        f"{payload.provenance}, {state}; caches {payload.cache_bytes / 2**20:.0f} MiB; {artifact.short}",
        markup=False,
        soft_wrap=True,
    )


def memory_json(artifact: Artifact[MemoryPayload]) -> dict[str, Any]:
    """Return the payload, its validity and where it lies."""
    return {
        **artifact.payload.model_dump(mode="json"),
        "validity": artifact.manifest.validity.model_dump(),
        "digest": artifact.digest,
        "path": str(artifact.path),
    }


def nodes_table(nodes: list[MemoryNode]) -> Table:
    """Return a row a memory node; the last columns are what the firmware claims."""
    rows = table(
        "memory nodes", ">node", "kind", "CPUs", ">GiB", ">GiB free", "distances",
        "nearest CPUs", ">claimed GB/s read", ">write", ">claimed ns read",
    )  # fmt: skip
    for node in nodes:
        rows.add_row(
            str(node.node),
            _kind(node),
            _cpus(node.cpus),
            f"{node.total_bytes / 2**30:.1f}",
            f"{node.free_bytes / 2**30:.1f}",
            " ".join(str(distance) for _, distance in sorted(node.distances.items())),
            ", ".join(f"node {number}" for number in node.initiators) or "-",
            _figure(node.read_bytes_per_s, 1e9),
            _figure(node.write_bytes_per_s, 1e9),
            _figure(node.read_latency_s, 1e-9),
        )
    return rows


def bandwidth_table(found: list[BandwidthRow]) -> Table:
    """Return a row a path: GB/s of each kind of traffic, with the spread of its repeats."""
    rows = table(
        "bandwidth, GB/s (range of repeats)", ">memory", ">CPUs of", ">threads", ">read", ">copy", ">add"
    )
    paths = dict.fromkeys((row.node, row.cpu_node, row.threads) for row in found)
    for path in paths:
        here = {
            row.traffic: f"{row.bytes_per_s / 1e9:.1f} (±{row.spread / 2:.0%})"
            for row in found
            if (row.node, row.cpu_node, row.threads) == path
        }
        rows.add_row(*map(str, path), here["read"], here["copy"], here["add"])
    return rows


def adam_table(found: list[AdamRow]) -> Table:
    """Return a row a size: elements a second, and GB/s at the 28 bytes that one fused pass moves of each."""
    rows = table(
        "Adam", ">memory", ">CPUs of", ">threads", "by", ">million", ">million/s", ">GB/s at 28 B", ">range"
    )
    for row in found:
        rows.add_row(
            str(row.node),
            str(row.cpu_node),
            str(row.threads),
            row.implementation,
            f"{row.elements / 1e6:g}",
            f"{row.elements_per_s / 1e6:,.0f}",
            f"{28 * row.elements_per_s / 1e9:.1f}" if row.implementation == "torch fused" else "-",
            f"±{row.spread / 2:.0%}",
        )
    return rows


def copies_table(found: list[CopyRow]) -> Table:
    """Return a row a direction of copies between pinned memory and a GPU."""
    rows = table("copies of pinned memory", ">memory", "GPU", "direction", ">GB/s", ">range")
    for row in found:
        rows.add_row(
            str(row.node),
            row.gpu,
            row.direction.replace("_", " "),
            f"{row.bytes_per_s / 1e9:.1f}",
            f"±{row.spread / 2:.0%}",
        )
    return rows


def _kind(node: MemoryNode) -> str:
    if not node.has_memory:
        return "no memory"
    return "no CPUs: CXL?" if node.cxl_candidate else "local DRAM"


def _cpus(cpus: tuple[int, ...]) -> str:
    if len(cpus) < 2:
        return ", ".join(map(str, cpus)) or "-"
    whole = cpus == tuple(range(cpus[0], cpus[-1] + 1))
    return f"{cpus[0]}-{cpus[-1]}" if whole else f"{len(cpus)}: {cpus[0]}…{cpus[-1]}"


def _figure(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.0f}"
