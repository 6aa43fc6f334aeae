"""What only shows on a machine with two memory nodes; skipped on others.

tests/profilers/sysfs/README.md says how to have one without the hardware.
"""

import mmap
from collections.abc import Iterator

import numpy as np
import pytest

from hgpu.core.errors import HgpuError
from hgpu.core.memory import MemoryNode
from hgpu.core.training_tensors import TrainingShape, offloaded_tensors
from hgpu.latency.memory_tiers import machine_tiers
from hgpu.profilers.memory import MemoryJob, describe_memory, profile_memory
from hgpu.profilers.memory_topology import SYSFS, read_topology
from hgpu.profilers.numa import Policy, nodes_of_pages, place, reserve, touch
from hgpu.profilers.numa_errors import usable_nodes
from hgpu.solvers.tier_placement import latency_first
from hgpu.tuning.stripes import unit_bytes
from hgpu.tuning.tiered_memory import allocate, allocate_shares

pytestmark = pytest.mark.skipif(len(usable_nodes()) < 2, reason="this machine has one memory node")
MIB = 2**20
PAGE = mmap.PAGESIZE
SMALL_BYTES = 2**31  # of a node that a test may fill


def pair() -> tuple[int, int]:
    first, second, *_ = sorted(usable_nodes())
    return first, second


@pytest.fixture
def small_node() -> Iterator[MemoryNode]:
    small = [node for node in read_topology() if node.has_memory and node.total_bytes <= SMALL_BYTES]
    if len(small) == 0 or len(usable_nodes()) < 2:
        pytest.skip("no node is small enough to be filled")
    yield small[-1]


def test_each_node_gets_what_is_bound_to_it() -> None:
    for node in usable_nodes():
        made = allocate(16 * MIB, [node])
        made.verify()
        assert made.residency() == {node: 16 * MIB}


@pytest.mark.parametrize("policy", [Policy.INTERLEAVE, Policy.WEIGHTED_INTERLEAVE])
def test_interleaved_pages_lie_on_both_in_turn(policy: Policy) -> None:
    """The weights are 1 where nobody set others."""
    made = allocate(32 * MIB, pair(), policy)
    made.verify()
    sizes = made.residency()
    assert sorted(sizes) == list(pair()) and abs(sizes[pair()[0]] - sizes[pair()[1]]) <= 4 * MIB


@pytest.mark.parametrize("part", [0.1, 0.25, 0.5, 0.9])
def test_unequal_shares_lie_as_asked_page_by_page(part: float) -> None:
    total = 64 * MIB
    first = round(total * part)
    made = allocate_shares([(pair()[0], first), (pair()[1], total - first)])
    made.verify()
    assert abs(made.residency()[pair()[0]] - first) <= 2 * unit_bytes(total)
    runs = np.flatnonzero(np.diff(nodes_of_pages(made.memory)))
    assert len(runs) > 10  # mixed, and not one half after the other


def test_pages_that_exist_are_moved() -> None:
    memory = reserve(4 * MIB)
    for node in pair():
        place(memory, Policy.BIND, [node])
        touch(memory)
        assert set(nodes_of_pages(memory).tolist()) == {node}


def test_a_page_that_is_moved_away_is_found() -> None:
    made = allocate(MIB, [pair()[0]])
    place(made.memory, Policy.BIND, [pair()[1]], start=10 * PAGE, size_bytes=3 * PAGE)
    with pytest.raises(HgpuError, match="3 of 256 pages aren't where") as caught:
        made.verify()
    assert f"page 10 lies on node {pair()[1]}" in caught.value.why


def test_a_full_node_is_refused_and_a_preferred_one_overflows(small_node: MemoryNode) -> None:
    size = small_node.available_bytes + 32 * MIB
    for policy in (Policy.BIND, Policy.INTERLEAVE):
        with pytest.raises(HgpuError, match=f"memory node {small_node.node} has too little memory"):
            allocate(size, [small_node.node], policy)
    made = allocate(size, [small_node.node], Policy.PREFERRED_MANY)
    with pytest.raises(HgpuError, match="pages aren't where"):
        made.verify()
    assert len(made.residency()) >= 2


def test_a_placement_for_this_machines_tiers_is_laid_out() -> None:
    """Tiers as large as the machine's, tensors that need both."""
    profile, _ = profile_memory(
        MemoryJob(repeats=2, array_bytes=8 * MIB, adam_elements=(10**5,)), lambda *_: None
    )
    found = machine_tiers(profile)
    tiers = [
        type(tier)(tier.name, capacity, tier.host_bandwidth_bytes_per_s, tier.device_bandwidth_bytes_per_s)
        for tier, capacity in zip(found.tiers[:2], (20 * MIB, 2**30), strict=True)
    ]
    tensors = offloaded_tensors(TrainingShape(2 * MIB, layers=2, hidden_size=64, batch=1, context_tokens=64))
    placement = latency_first(tensors, tiers)
    assert placement.masks == "[0][0][0,1][1][1][1][1]"
    for row in placement.placed:
        shares = list(zip(found.nodes[:2], row.bytes_by_tier, strict=True))
        made = allocate_shares(shares)
        made.verify()
        assert len(made.residency()) == len(row.mask)


def test_every_node_is_measured_by_every_socket() -> None:
    payload, _ = profile_memory(
        MemoryJob(repeats=2, array_bytes=8 * MIB, adam_elements=(10**5,)), lambda *_: None
    )
    sockets = {node.node for node in describe_memory(SYSFS).nodes if node.cpus}
    assert {(row.node, row.cpu_node) for row in payload.bandwidth} == {
        (node, socket) for node in usable_nodes() for socket in sockets
    }
    assert {row.node for row in payload.adam} == usable_nodes()
