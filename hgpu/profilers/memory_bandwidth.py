"""Bandwidth of a node's memory, by numpy on pages that lie there: reading, copying and adding.

numpy's loops over long arrays are bound by memory on today's cores and run without the interpreter's lock, so
that threads work at once.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from hgpu.artifacts.payloads.memory import BandwidthRow, Traffic
from hgpu.core.memory import MemoryNode
from hgpu.profilers.memory_timing import placed_array, spread, time_together, usable_cpus

OPERANDS: dict[Traffic, int] = {"read": 1, "copy": 2, "add": 3}
Words = NDArray[np.uint64]


def measure_bandwidth(
    node: MemoryNode, cpu_node: MemoryNode, threads: int, array_bytes: int, repeats: int
) -> list[BandwidthRow]:
    """Measure all kinds of traffic between a node's memory and `threads` cores of a node.

    Each core works on its own part of three arrays of `array_bytes`. Raises as `placed_array`.
    """
    part_bytes = array_bytes // threads // 4096 * 4096
    parts = [[_words(placed_array(node, part_bytes)) for _ in range(3)] for _ in range(threads)]
    cpus = usable_cpus(cpu_node)[:threads]
    rows = []
    for traffic in get_args(Traffic):
        seconds = time_together([_work(traffic, part) for part in parts], cpus, repeats)
        moved = OPERANDS[traffic] * part_bytes * threads
        rows.append(
            BandwidthRow(
                node=node.node,
                cpu_node=cpu_node.node,
                threads=threads,
                traffic=traffic,
                seconds=seconds,
                spread=spread(seconds),
                bytes_per_s=moved / statistics.median(seconds),
            )
        )
    return rows


def thread_counts(cpus: int) -> list[int]:
    """Return 1, 2, 4 and so on, and all of them."""
    return sorted({1 << power for power in range(cpus.bit_length()) if 1 << power <= cpus} | {cpus})


def _words(memory: NDArray[np.uint8]) -> Words:
    return memory.view(np.uint64)


def _work(traffic: Traffic, arrays: Sequence[Words]) -> Callable[[], object]:
    one, two, three = arrays
    if traffic == "read":
        return one.max
    if traffic == "copy":
        return partial(np.copyto, two, one)
    return partial(np.add, one, two, out=three)
