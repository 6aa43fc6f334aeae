"""Timing work on a node's memory by threads that are bound to cores."""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from hgpu.core.errors import HgpuError, InvalidMeasurement
from hgpu.core.memory import MemoryNode
from hgpu.profilers.numa import Policy, nodes_of_pages, place, reserve, touch
from hgpu.profilers.numa_errors import require_room

BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
IDLE = ("idle", "iowait")
TASKS = Path("/proc/self/task")


def placed_array(node: MemoryNode, size_bytes: int) -> NDArray[np.uint8]:
    """Return bytes whose every page lies on a node.

    Raises HgpuError where it has no room, InvalidMeasurement where pages came to lie elsewhere.
    """
    require_room([node], [([node.node], size_bytes)])
    memory = reserve(size_bytes)
    place(memory, Policy.BIND, [node.node])
    touch(memory)
    elsewhere = int((nodes_of_pages(memory) != node.node).sum())
    if elsewhere:
        raise InvalidMeasurement(
            f"{elsewhere} pages don't lie on memory node {node.node}",
            "they were bound to it before they were touched",
            "stop numad and AutoNUMA",
        )
    return np.frombuffer(memory, np.uint8)


def usable_cpus(node: MemoryNode) -> list[int]:
    """Return the node's CPUs that this process may run on."""
    return sorted(os.sched_getaffinity(0) & set(node.cpus))


def time_together(works: Sequence[Callable[[], object]], cpus: Sequence[int], repeats: int) -> list[float]:
    """Run each work on a core of its own, all at once; return seconds from first start to last end.

    One more run comes before the repeats and isn't counted. Raises what a work raises.
    """
    barrier = threading.Barrier(len(works) + 1)
    failed: list[BaseException] = []

    def run(work: Callable[[], object], cpu: int) -> None:
        try:
            os.sched_setaffinity(0, {cpu})  # of this thread alone
            for _ in range(repeats + 1):
                barrier.wait()
                work()
                barrier.wait()
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in zip(works, cpus, strict=True)]
    for thread in threads:
        thread.start()
    seconds = []
    try:
        for _ in range(repeats + 1):
            barrier.wait()
            start = time.perf_counter()
            barrier.wait()
            seconds.append(time.perf_counter() - start)
    except threading.BrokenBarrierError:
        pass
    for thread in threads:
        thread.join()
    if failed:
        raise HgpuError("a thread that measures failed", str(failed[0])) from failed[0]
    return seconds[1:]


@contextmanager
def bound_to(cpus: Sequence[int]) -> Iterator[None]:
    """Bind every thread of this process, also those of a library's pool, and free them afterwards."""
    before = os.sched_getaffinity(0)
    _bind_all(set(cpus))
    try:
        yield
    finally:
        _bind_all(before)


class OthersMeter:
    """Tells how much of all CPU time went to others since it was made."""

    def __init__(self) -> None:
        self.before = psutil.cpu_times()
        self.own_before_s = time.process_time()

    def others_share(self) -> float:
        """Return the part of all CPU time that neither idled nor was this process's, stolen time included."""
        after, own_s = psutil.cpu_times(), time.process_time() - self.own_before_s
        passed = {name: getattr(after, name) - getattr(self.before, name) for name in BUSY + IDLE}
        busy_s = sum(passed[name] for name in BUSY)
        return float(max(0.0, busy_s - own_s) / max(sum(passed.values()), 1e-9))


def spread(seconds: Sequence[float]) -> float:
    """Return the range over the median."""
    return (max(seconds) - min(seconds)) / statistics.median(seconds)


def _bind_all(cpus: set[int]) -> None:
    for task in TASKS.iterdir():
        try:
            os.sched_setaffinity(int(task.name), cpus)
        except ProcessLookupError:  # it ended meanwhile
            continue
