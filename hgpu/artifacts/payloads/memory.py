"""Payload of a memory profile: a machine's memory nodes and how fast each of them is."""

from typing import Literal

from hgpu.artifacts.manifest import Strict
from hgpu.core.memory import MemoryNode
from hgpu.core.provenance import Provenance

Traffic = Literal["read", "copy", "add"]


class Timed(Strict):
    """What was timed again and again: the seconds of every repeat, and their range over the median."""

    seconds: list[float]
    spread: float


class BandwidthRow(Timed):
    """Bytes a second between a node's memory and some cores of a node, all of them working at once.

    Bytes are counted as STREAM does, one read or write an operand: 1 for `read` (a maximum), 2 for `copy`,
    3 for `add`. What a cache reads before it writes isn't counted.
    """

    node: int
    cpu_node: int
    threads: int
    traffic: Traffic
    bytes_per_s: float


class AdamRow(Timed):
    """Elements a second of an Adam step with all four fp32 tensors on a node.

    `implementation` is `torch fused` (one pass, 28 bytes an element) or `numpy` (several passes: far slower
    than an optimizer need be).
    """

    node: int
    cpu_node: int
    threads: int
    implementation: str
    elements: int
    elements_per_s: float


class CopyRow(Timed):
    """Bytes a second of copies between a node's pinned memory and a GPU."""

    node: int
    gpu: str
    direction: Literal["to_device", "to_host"]
    bytes_per_s: float


class MemoryPayload(Strict):
    """`notes` say what wasn't measured and why. A topology alone is `estimated`: the firmware's claims.

    `others_share` is how much of all CPU time went to other processes and other guests meanwhile.
    """

    nodes: list[MemoryNode]
    cache_bytes: int
    bandwidth: list[BandwidthRow]
    adam: list[AdamRow]
    copies: list[CopyRow]
    others_share: float | None
    provenance: Provenance
    notes: list[str]
