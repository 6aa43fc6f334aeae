"""Profiles a machine's memory: its nodes, their bandwidth by threads, Adam by size, and copies to GPUs."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.memory import AdamRow, BandwidthRow, CopyRow, MemoryPayload, Timed
from hgpu.core.errors import InputError
from hgpu.core.memory import MemoryNode, nearest
from hgpu.core.provenance import Provenance
from hgpu.profilers.memory_adam import NUMPY, adam_implementation, measure_adam
from hgpu.profilers.memory_bandwidth import measure_bandwidth, thread_counts
from hgpu.profilers.memory_timing import OthersMeter, usable_cpus
from hgpu.profilers.memory_topology import cache_bytes, read_topology
from hgpu.profilers.numa_errors import usable_nodes
from hgpu.profilers.pinning import gpus_of_torch, measure_copies

ADAM_ELEMENTS = (1_000_000, 5_000_000, 20_000_000, 67_000_000)
SMALLEST_ARRAY_BYTES = 256 * 2**20
CACHES = 4  # an array is this many times the caches, so that it can't lie in them
NOISY = 0.25  # spread over the median from which on the machine was too busy
CROWDED = 0.1  # of all CPU time: more than this for other processes is too busy as well
Say = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class MemoryJob:
    """What to measure: nodes (all where None), how often, the bytes of an array, Adam of which sizes."""

    nodes: tuple[int, ...] | None = None
    repeats: int = 5
    array_bytes: int | None = None
    adam_elements: tuple[int, ...] = ADAM_ELEMENTS


@dataclass(frozen=True, slots=True)
class _Path:
    """Memory of one node used by `threads` cores of another, or of itself."""

    node: MemoryNode
    cpu_node: MemoryNode
    threads: int


def describe_memory(root: Path) -> MemoryPayload:
    """Return a profile of what a recorded sysfs tree says; nothing is measured. Raises InputError."""
    return MemoryPayload(
        nodes=list(read_topology(root)),
        cache_bytes=cache_bytes(root),
        bandwidth=[],
        adam=[],
        copies=[],
        others_share=None,
        provenance=Provenance.ESTIMATED,
        notes=[f"read from {root.name or root}: nothing was measured"],
    )


def profile_memory(job: MemoryJob, say: Say) -> tuple[MemoryPayload, Validity]:
    """Measure this machine's memory, and say whether the figures may be believed.

    Raises InputError for a node that can't be used, and HgpuError where memory can't be placed.
    """
    nodes = read_topology()
    measured = _chosen(nodes, job.nodes)
    caches = cache_bytes()
    busy = OthersMeter()
    array_bytes = job.array_bytes or max(SMALLEST_ARRAY_BYTES, CACHES * caches)
    paths = [path for node in measured for path in _paths(node, nodes)]
    widest = list({(path.node.node, path.cpu_node.node): path for path in paths}.values())
    steps = _Steps(len(paths) + len(widest) * len(job.adam_elements) + len(measured) * gpus_of_torch(), say)
    bandwidth: list[BandwidthRow] = []
    for path in paths:
        steps.next(f"bandwidth of node {path.node.node}, {path.threads} threads")
        bandwidth += measure_bandwidth(path.node, path.cpu_node, path.threads, array_bytes, job.repeats)
    adam = list(_adam(widest, job, steps))
    copies = list(_copies(measured, array_bytes, job.repeats, steps))
    payload = MemoryPayload(
        nodes=list(nodes),
        cache_bytes=caches,
        bandwidth=bandwidth,
        adam=adam,
        copies=copies,
        others_share=busy.others_share(),
        provenance=Provenance.MEASURED,
        notes=_notes(),
    )
    return payload, validity(payload, array_bytes)


def validity(payload: MemoryPayload, array_bytes: int) -> Validity:
    """Say whether a profile may be believed: quiet repeats, and arrays that no cache holds."""
    rows: Sequence[Timed] = [*payload.bandwidth, *payload.adam, *payload.copies]
    reasons = []
    noise = statistics.median(row.spread for row in rows) if rows else 0.0
    if noise > NOISY:
        reasons.append(f"repeats differ by {noise:.0%} of their median: the machine was busy")
    if payload.others_share is not None and payload.others_share > CROWDED:
        reasons.append(f"other processes took {payload.others_share:.0%} of the CPUs")
    if array_bytes < CACHES * payload.cache_bytes:
        reasons.append(
            f"arrays of {array_bytes / 2**20:.0f} MiB aren't {CACHES} times the caches'"
            f" {payload.cache_bytes / 2**20:.0f} MiB"
        )
    return Validity(valid=not reasons, reasons=reasons)


class _Steps:
    """Counts what is done and tells it."""

    def __init__(self, total: int, say: Say) -> None:
        self.done, self.total, self.say = 0, total, say

    def next(self, what: str) -> None:
        self.done += 1
        self.say(self.done, self.total, what)


def _chosen(nodes: Sequence[MemoryNode], wanted: tuple[int, ...] | None) -> list[MemoryNode]:
    allowed = usable_nodes()
    usable = [node for node in nodes if node.node in allowed]
    chosen = [node for node in usable if wanted is None or node.node in wanted]
    missing = sorted(set(wanted or ()) - {node.node for node in chosen})
    if missing or not chosen:
        raise InputError(
            f"memory node {', '.join(map(str, missing))} can't be measured here",
            f"nodes with memory that this process may use: {', '.join(str(n.node) for n in usable)}",
            "name one of them with --node, or none for all",
        )
    return chosen


def _paths(node: MemoryNode, nodes: Sequence[MemoryNode]) -> Iterator[_Path]:
    """Yield the ways to a node: more and more cores of the nearest node, and all of every other node.

    The last one from a node is that with most threads.
    """
    near = nearest(node, nodes)
    for cpu_node in nodes:
        cores = len(usable_cpus(cpu_node))
        if cores:
            for threads in thread_counts(cores) if cpu_node == near else [cores]:
                yield _Path(node, cpu_node, threads)


def _adam(paths: Sequence[_Path], job: MemoryJob, steps: _Steps) -> Iterator[AdamRow]:
    for path in paths:
        for elements in job.adam_elements:
            steps.next(f"Adam of {elements / 1e6:g} million on node {path.node.node}")
            yield measure_adam(path.node, path.cpu_node, path.threads, elements, job.repeats)


def _copies(nodes: Sequence[MemoryNode], array_bytes: int, repeats: int, steps: _Steps) -> Iterator[CopyRow]:
    for node in nodes:
        for gpu in range(gpus_of_torch()):
            steps.next(f"copies between node {node.node} and GPU {gpu}")
            yield from measure_copies(node, gpu, array_bytes, repeats)


def _notes() -> list[str]:
    notes = []
    if adam_implementation() == NUMPY:
        notes.append("torch isn't installed: Adam is numpy's, on one core and in several passes")
    if not gpus_of_torch():
        notes.append("torch finds no GPU here: copies from and to pinned memory weren't measured")
    return notes
