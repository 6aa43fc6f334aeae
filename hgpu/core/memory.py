"""A machine's memory as its kernel describes it: NUMA nodes, their CPUs, and what the firmware claims."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryNode:
    """One NUMA node.

    `reclaimable_bytes` is the inactive page cache, which the kernel drops first. `distances` are the
    firmware's, by node, 10 for itself. `initiators` are the nodes whose CPUs reach this memory fastest, and
    the figures below them what the firmware (ACPI HMAT, or CXL's CDAT) says of that path; None where it says
    nothing. They are claims, not measurements.
    """

    node: int
    cpus: tuple[int, ...]
    total_bytes: int
    free_bytes: int
    reclaimable_bytes: int
    distances: Mapping[int, int]
    initiators: tuple[int, ...] = ()
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None
    read_latency_s: float | None = None
    write_latency_s: float | None = None

    @property
    def has_memory(self) -> bool:
        """True where something can be placed on it."""
        return self.total_bytes > 0

    @property
    def available_bytes(self) -> int:
        """Bytes that can be had without pushing anybody out."""
        return self.free_bytes + self.reclaimable_bytes

    @property
    def cxl_candidate(self) -> bool:
        """True for memory without CPUs, as a CXL card's; flat HBM, GPU memory and PMem look alike."""
        return self.has_memory and not self.cpus


def nearest(node: MemoryNode, nodes: Iterable[MemoryNode]) -> MemoryNode:
    """Return the node with CPUs that is nearest to a node's memory; itself where it has CPUs.

    Raises ValueError where no node has any, which no running kernel reports.
    """
    ranked = [
        (other.node not in node.initiators, node.distances.get(other.node, 255), other.node, other)
        for other in nodes
        if other.cpus
    ]
    return node if node.cpus else min(ranked)[3]
