"""Tensors in memory of chosen NUMA nodes, with the place of every page checked.

Fresh address space is given a policy by `mbind` before it has pages, then filled, and `move_pages` tells
where every page came to lie. `torch.frombuffer` makes a tensor of it without a copy or a C++ extension.
"""

import ctypes
import mmap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import HgpuError, InputError
from hgpu.core.memory import MemoryNode
from hgpu.profilers.memory_topology import read_topology
from hgpu.profilers.numa import Policy, nodes_of_pages, place, reserve, touch
from hgpu.profilers.numa_errors import listed, require_nodes, require_room
from hgpu.profilers.pinning import pin, unpin
from hgpu.tuning.stripes import Stripe, stripes


@dataclass(frozen=True, slots=True)
class TieredMemory:
    """Memory whose pages come from `nodes` by `policy`, or, with `laid`, stripe by stripe from its node.

    It lives as long as anything refers to it, a tensor included.
    """

    memory: mmap.mmap
    policy: Policy
    nodes: tuple[int, ...]
    laid: tuple[Stripe, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of it."""
        return len(self.memory)

    def tensor(self, dtype: Any, count: int = -1, offset_bytes: int = 0) -> Any:
        """Return a flat torch tensor over a part of it, without a copy."""
        import torch

        return torch.frombuffer(self.memory, dtype=dtype, count=count, offset=offset_bytes)

    def residency(self) -> dict[int, int]:
        """Return the bytes on each node, by asking the kernel about every page."""
        counts = Counter(nodes_of_pages(self.memory).tolist())
        return {node: pages * mmap.PAGESIZE for node, pages in sorted(counts.items())}

    def verify(self) -> None:
        """Raise HgpuError where a page lies elsewhere than asked: another node, or another stripe's."""
        found = nodes_of_pages(self.memory)
        wrong = np.flatnonzero(self._misplaced(found))
        if len(wrong):
            raise HgpuError(
                f"{len(wrong):,} of {len(found):,} pages aren't where they were asked to be",
                f"page {wrong[0]:,} lies on node {found[wrong[0]]}, not on {self._asked(int(wrong[0]))}",
                "another node was full or memory was moved: free some, and stop numad and AutoNUMA",
            )

    def pin(self) -> None:
        """Lock its pages for direct copies by CUDA devices, until `unpin`. Never run by us on a GPU yet.

        Raises EngineError where torch has no CUDA device, or CUDA refuses.
        """
        pin(self._address(), self.size_bytes)

    def unpin(self) -> None:
        """Let CUDA forget it; call it before the last reference goes."""
        unpin(self._address())

    def _address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def _misplaced(self, found: NDArray[np.int32]) -> NDArray[np.bool_]:
        if not self.laid:
            return ~np.isin(found, self.nodes)
        page = mmap.PAGESIZE
        ends = [-(-(stripe.start + stripe.size_bytes) // page) for stripe in self.laid]
        asked = np.repeat([stripe.node for stripe in self.laid], np.diff([0, *ends]))
        return np.asarray(found != asked)

    def _asked(self, page: int) -> str:
        inside = [stripe for stripe in self.laid if stripe.start <= page * mmap.PAGESIZE]
        return str(inside[-1].node) if inside else listed(self.nodes)


def allocate(
    size_bytes: int,
    nodes: Sequence[int],
    policy: Policy = Policy.BIND,
    topology: Iterable[MemoryNode] | None = None,
) -> TieredMemory:
    """Return memory on `nodes` by a policy, every page there.

    `topology` is the machine's own where none is given. Raises InputError for a node that can't be used, and
    HgpuError where there is too little memory, no permission, or a kernel without the policy.
    """
    require_nodes(nodes)
    if policy is Policy.INTERLEAVE:
        part = -(-size_bytes // len(nodes))
        require_room(topology or read_topology(), [([node], part) for node in nodes])
    elif policy is not Policy.PREFERRED_MANY:  # which goes elsewhere when they are full
        require_room(topology or read_topology(), [(nodes, size_bytes)])
    memory = reserve(size_bytes)
    place(memory, policy, nodes)
    touch(memory)
    return TieredMemory(memory, policy, tuple(nodes))


def allocate_shares(
    bytes_by_node: Sequence[tuple[int, int]], topology: Iterable[MemoryNode] | None = None
) -> TieredMemory:
    """Return memory with the given bytes on each node, in stripes, every page there.

    A single node is bound whole. Raises as `allocate`; InputError where there is nothing to place.
    """
    wanted = [(node, size) for node, size in bytes_by_node if size > 0]
    if not wanted:
        raise InputError("there is nothing to place", "all sizes are 0", "give a node some bytes")
    if len(wanted) == 1:
        return allocate(wanted[0][1], [wanted[0][0]], Policy.BIND, topology)
    require_nodes([node for node, _ in wanted])
    total = sum(size for _, size in wanted)
    laid = tuple(stripes(wanted))
    require_room(topology or read_topology(), [([node], size) for node, size in wanted])
    memory = reserve(total)
    for stripe in laid:
        place(memory, Policy.BIND, [stripe.node], stripe.start, stripe.size_bytes)
    touch(memory)
    return TieredMemory(memory, Policy.BIND, tuple(node for node, _ in wanted), laid)
