"""Memory on chosen NUMA nodes, by the kernel's own calls: `mbind` and `move_pages`.

glibc wraps neither and libnuma is often missing, so they are called by number. See mbind(2), move_pages(2)
and the kernel's Documentation/admin-guide/mm/numa_memory_policy.rst.
"""

import ctypes
import errno
import mmap
import platform
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import HgpuError
from hgpu.profilers.numa_errors import refusal, require_nodes

NUMBERS = {"x86_64": {"mbind": 237, "move_pages": 279}, "aarch64": {"mbind": 235, "move_pages": 239}}
MASK_BITS = 1024
STRICT_AND_MOVE = 1 | 2
POPULATE_WRITE = 23  # madvise(2), Linux 5.14
PAGES_A_CALL = 65_536


class Policy(IntEnum):
    """How pages are given to nodes; the value is the kernel's number.

    BIND: these nodes only. INTERLEAVE: page by page in turn. PREFERRED_MANY (Linux 5.15): these nodes first,
    others when they are full. WEIGHTED_INTERLEAVE (6.9): in turn by the machine-wide weights in
    /sys/kernel/mm/mempolicy/weighted_interleave.
    """

    BIND = 2
    INTERLEAVE = 3
    PREFERRED_MANY = 5
    WEIGHTED_INTERLEAVE = 6


def reserve(size_bytes: int) -> mmap.mmap:
    """Return fresh private address space, without pages yet. Raises HgpuError where it is refused."""
    try:
        return mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, OverflowError) as error:
        raise HgpuError(
            f"can't reserve {size_bytes / 2**30:.2f} GiB of memory",
            f"mmap: {error}",
            "place less, or raise the limit of address space (ulimit -v)",
        ) from error


def place(
    memory: mmap.mmap, policy: Policy, nodes: Sequence[int], start: int = 0, size_bytes: int | None = None
) -> None:
    """Let the pages of a part of `memory` come from `nodes`; pages that exist already are moved.

    `start` must be a multiple of the page size. Raises InputError for a node that can't be used, and
    HgpuError where the kernel lacks the policy or the process the permission.
    """
    require_nodes(nodes)
    mask = (ctypes.c_ulong * (MASK_BITS // 64))()
    for node in nodes:
        mask[node // 64] |= 1 << node % 64
    where = ctypes.c_void_p(_address(memory) + start)
    length = ctypes.c_ulong(len(memory) - start if size_bytes is None else size_bytes)
    number = _call("mbind", where, length, int(policy), mask, ctypes.c_ulong(MASK_BITS), STRICT_AND_MOVE)
    if number:
        raise refusal("mbind", number, policy.name)


def touch(memory: mmap.mmap) -> None:
    """Give every page its memory now. Raises HgpuError where there is none left."""
    try:
        memory.madvise(POPULATE_WRITE)
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is an older kernel's
            raise refusal("madvise", error.errno or 0) from error
        np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE] = 0


def nodes_of_pages(memory: mmap.mmap) -> NDArray[np.int32]:
    """Return the node of every page; −2 (ENOENT) for a page that isn't there yet.

    Raises HgpuError where the kernel doesn't tell.
    """
    pages = -(-len(memory) // mmap.PAGESIZE)
    addresses = _address(memory) + mmap.PAGESIZE * np.arange(pages, dtype=np.uint64)
    found = np.empty(pages, np.int32)
    for first in range(0, pages, PAGES_A_CALL):
        some, status = (part[first : first + PAGES_A_CALL] for part in (addresses, found))
        pointers = (part.ctypes.data_as(ctypes.c_void_p) for part in (some, status))
        number = _call("move_pages", 0, ctypes.c_ulong(len(some)), next(pointers), None, next(pointers), 0)
        if number:
            raise refusal("move_pages", number)
    return found


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _call(name: str, *words: object) -> int:
    """Make a system call and return its errno, 0 where it succeeded."""
    machine = platform.machine()
    if machine not in NUMBERS:
        raise HgpuError(
            f"hgpu can't place memory on {machine}", f"it knows the calls of {' and '.join(NUMBERS)}"
        )
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(ctypes.c_long(NUMBERS[machine][name]), *words)
    return ctypes.get_errno() if done < 0 else 0
