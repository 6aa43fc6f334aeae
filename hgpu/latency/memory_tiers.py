"""Memory tiers for placing and predicting, from a memory profile: local DRAM first, then farther memory."""

from collections.abc import Iterable
from dataclasses import dataclass

from hgpu.artifacts.payloads.memory import MemoryPayload
from hgpu.core.errors import InputError
from hgpu.core.gpu import MemoryTier
from hgpu.core.memory import MemoryNode
from hgpu.core.provenance import Provenance, weakest

ADAM_BYTES = 28  # that one fused pass moves of an element


@dataclass(frozen=True, slots=True)
class MachineTiers:
    """Tiers, the NUMA node that each of them is, and what their bandwidths may claim to be."""

    tiers: tuple[MemoryTier, ...]
    nodes: tuple[int, ...]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class _Speed:
    bytes_per_s: float
    provenance: Provenance


def machine_tiers(profile: MemoryPayload, local: int | None = None) -> MachineTiers:
    """Return a machine's tiers as seen from the CPUs of node `local`, by default the first that has both.

    The others are the nodes without CPUs, or where there are none the other sockets, nearest first. A tier is
    as fast to the host as the largest fused Adam step that was measured there, else as `add`, else as the
    firmware claims; to devices as its pinned copies, else as `read`, else as claimed. A figure that stands in
    for a measurement makes the tiers `estimated`. Capacity is all of a node's memory. Raises InputError where
    nothing tells how fast a node is.
    """
    nodes = {node.node: node for node in profile.nodes if node.has_memory}
    first = next((number for number, node in nodes.items() if node.cpus), None) if local is None else local
    if first is None or first not in nodes:
        raise InputError(
            f"memory node {local} can't be the local one",
            f"nodes with memory: {', '.join(map(str, nodes))}",
            "name one that has CPUs and memory",
        )
    chosen = [nodes[first], *_others(nodes[first], nodes.values())]
    host = [_host(profile, node, first) for node in chosen]
    device = [_device(profile, node, first) for node in chosen]
    tiers = tuple(
        MemoryTier(_name(node), node.total_bytes, to_host.bytes_per_s, to_device.bytes_per_s)
        for node, to_host, to_device in zip(chosen, host, device, strict=True)
    )
    sources = weakest(speed.provenance for speed in (*host, *device))
    return MachineTiers(tiers, tuple(node.node for node in chosen), sources)


def _others(local: MemoryNode, nodes: Iterable[MemoryNode]) -> list[MemoryNode]:
    others = [node for node in nodes if node != local]
    cards = [node for node in others if node.cxl_candidate]
    return sorted(cards or others, key=lambda node: (local.distances.get(node.node, 255), node.node))


def _name(node: MemoryNode) -> str:
    return f"{'cxl' if node.cxl_candidate else 'dram'}{node.node}"


def _host(profile: MemoryPayload, node: MemoryNode, local: int) -> _Speed:
    steps = [
        (row.elements, ADAM_BYTES * row.elements_per_s)
        for row in profile.adam
        if (row.node, row.cpu_node, row.implementation) == (node.node, local, "torch fused")
    ]
    if steps:
        return _Speed(max(steps)[1], Provenance.MEASURED)
    return _traffic(profile, node, local, "add")


def _device(profile: MemoryPayload, node: MemoryNode, local: int) -> _Speed:
    copies = [row.bytes_per_s for row in profile.copies if row.node == node.node]
    if copies:
        return _Speed(min(copies), Provenance.MEASURED)
    return _Speed(_traffic(profile, node, local, "read").bytes_per_s, Provenance.ESTIMATED)


def _traffic(profile: MemoryPayload, node: MemoryNode, local: int, traffic: str) -> _Speed:
    measured = [
        row.bytes_per_s
        for row in profile.bandwidth
        if (row.node, row.cpu_node, row.traffic) == (node.node, local, traffic)
    ]
    if measured:
        return _Speed(max(measured), Provenance.MEASURED)
    claims = [claim for claim in (node.read_bytes_per_s, node.write_bytes_per_s) if claim]
    if not claims:
        raise InputError(
            f"nothing tells how fast memory node {node.node} is",
            "it wasn't measured and the firmware claims nothing",
            "measure it on that machine: hgpu profile memory",
        )
    return _Speed(min(claims), Provenance.ESTIMATED)
