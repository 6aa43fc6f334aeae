"""What the kernel's answers to placing memory mean, and which nodes this process may use."""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from hgpu.core.errors import HgpuError, InputError
from hgpu.core.memory import MemoryNode
from hgpu.profilers.memory_topology import NODES, SYSFS, expand

STATUS = Path("/proc/self/status")
SPARE_BYTES = 64 * 2**20  # left on a node for everybody else


def usable_nodes() -> frozenset[int]:
    """Return the nodes that have memory and that this process's cpuset lets it use.

    Raises HgpuError where the kernel doesn't tell.
    """
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
        existing = (SYSFS / NODES / "has_memory").read_text(encoding="ascii").strip()
    except OSError as error:
        raise HgpuError(
            "can't tell which memory nodes there are", str(error), "it needs Linux built with CONFIG_NUMA"
        ) from error
    allowed = [line.partition(":")[2].strip() for line in lines if line.startswith("Mems_allowed_list:")]
    return frozenset(expand(existing)) & frozenset(expand(",".join(allowed)))


def require_nodes(nodes: Sequence[int]) -> None:
    """Raise InputError unless memory can be placed on every one of `nodes`.

    mbind itself answers EINVAL only where it knows none of them, and silently drops the others.
    """
    usable = usable_nodes()
    if not nodes or not usable.issuperset(nodes):
        raise InputError(
            f"memory can't be placed on node {listed(nodes) or '(none named)'}",
            f"nodes with memory that this process may use: {listed(sorted(usable))}",
            "name one of them; `hgpu profile memory` shows what they are",
        )


def require_room(nodes: Iterable[MemoryNode], wanted: Iterable[tuple[Sequence[int], int]]) -> None:
    """Raise HgpuError where some nodes together have fewer available bytes than `wanted` of them.

    A full node under BIND doesn't fail a call: the kernel kills a process. So it is asked first.
    """
    available = {node.node: node.available_bytes for node in nodes}
    for numbers, size_bytes in wanted:
        there = sum(available.get(number, 0) for number in numbers)
        if size_bytes > there - SPARE_BYTES:
            raise HgpuError(
                f"memory node {listed(numbers)} has too little memory",
                f"{size_bytes / 2**30:.2f} GiB are asked of it, {there / 2**30:.2f} GiB are available",
                "place less on it, or free some",
            )


def refusal(call: str, number: int, what: str = "these nodes") -> HgpuError:
    """Return the error for an errno of a call on memory's places."""
    why = f"{call}: {os.strerror(number)}"
    meanings = {
        errno.EINVAL: (
            f"this kernel doesn't place memory by {what}",
            "Linux 5.15 has PREFERRED_MANY, 6.9 WEIGHTED_INTERLEAVE; use INTERLEAVE or BIND",
        ),
        errno.EPERM: (
            "not allowed to place memory on nodes",
            "containers forbid it without CAP_SYS_NICE: docker run --cap-add SYS_NICE",
        ),
        errno.ENOSYS: (
            "this kernel can't place memory on nodes",
            "it needs Linux built with CONFIG_NUMA",
        ),
        errno.ENOMEM: ("no memory is left to place memory", "place less, or free some"),
        errno.EIO: ("existing pages can't be moved to the nodes", "place memory while it is fresh"),
    }
    meaning, fix = meanings.get(number, ("the kernel refused to place memory", ""))
    return HgpuError(meaning, why, fix)


def listed(nodes: Iterable[int]) -> str:
    """Return node numbers for a message."""
    return ", ".join(str(node) for node in nodes)
