"""Tiers come from what was measured, else from what the firmware claims, and say which."""

from pathlib import Path

import pytest

from hgpu.artifacts.payloads.memory import AdamRow, BandwidthRow, CopyRow, MemoryPayload
from hgpu.core.errors import InputError
from hgpu.core.provenance import Provenance
from hgpu.core.training_tensors import TrainingShape, offloaded_tensors
from hgpu.latency.memory_tiers import machine_tiers
from hgpu.profilers.memory import describe_memory
from hgpu.solvers.tier_placement import latency_first

SYSFS = Path(__file__).parents[1] / "profilers" / "sysfs"
NOISE = {"seconds": [1.0], "spread": 0.0}


def recorded(name: str) -> MemoryPayload:
    return describe_memory(SYSFS / name)


def test_cards_follow_local_memory_by_distance() -> None:
    for local, nodes in ((0, (0, 2, 3)), (1, (1, 3, 2))):
        found = machine_tiers(recorded("cxl"), local)
        assert found.nodes == nodes and found.provenance is Provenance.ESTIMATED
        assert [tier.name for tier in found.tiers] == [f"dram{local}", *(f"cxl{node}" for node in nodes[1:])]
        assert found.tiers[1].host_bandwidth_bytes_per_s == 25.6e9
    assert machine_tiers(recorded("cxl")).nodes == (0, 2, 3)


def test_the_other_socket_is_the_second_tier_where_there_are_no_cards() -> None:
    found = machine_tiers(recorded("two-sockets"), 1)
    assert found.nodes == (1, 0) and [tier.name for tier in found.tiers] == ["dram1", "dram0"]


def test_a_recorded_topology_can_be_placed_on() -> None:
    shape = TrainingShape(8_340_000_000, layers=32, hidden_size=4096, batch=1, context_tokens=4096)
    cxl = latency_first(offloaded_tensors(shape), machine_tiers(recorded("cxl")).tiers)
    assert cxl.masks == "[0][0][0][0][0,1,2][1,2][1,2]"
    sockets = latency_first(offloaded_tensors(shape), machine_tiers(recorded("two-sockets")).tiers)
    assert sockets.masks == "[0][0][0][0][0,1][1][1]"


def test_what_was_measured_counts_before_what_is_claimed() -> None:
    payload = recorded("cxl")
    adam = [
        AdamRow(
            node=2,
            cpu_node=0,
            threads=8,
            implementation="torch fused",
            elements=size,
            elements_per_s=speed,
            **NOISE,
        )
        for size, speed in ((1_000_000, 5e9), (67_000_000, 1e9))
    ]
    slow = AdamRow(
        node=3, cpu_node=0, threads=1, implementation="numpy", elements=10**8, elements_per_s=1.0, **NOISE
    )
    add = BandwidthRow(node=3, cpu_node=0, threads=8, traffic="add", bytes_per_s=20e9, **NOISE)
    read = BandwidthRow(node=3, cpu_node=0, threads=8, traffic="read", bytes_per_s=30e9, **NOISE)
    other = BandwidthRow(node=3, cpu_node=1, threads=8, traffic="add", bytes_per_s=40e9, **NOISE)
    copies = [
        CopyRow(node=2, gpu="any", direction=direction, bytes_per_s=speed, **NOISE)
        for direction, speed in (("to_device", 22e9), ("to_host", 21e9))
    ]
    changed = payload.model_copy(
        update={"adam": [*adam, slow], "bandwidth": [add, read, other], "copies": copies}
    )
    _, two, three = machine_tiers(changed).tiers
    assert (two.host_bandwidth_bytes_per_s, two.device_bandwidth_bytes_per_s) == (28e9, 21e9)
    assert (three.host_bandwidth_bytes_per_s, three.device_bandwidth_bytes_per_s) == (20e9, 30e9)


def test_a_node_that_nothing_is_known_of_is_refused() -> None:
    payload = recorded("cxl")
    silent = [
        node if node.node != 3 else type(node)(3, (), node.total_bytes, node.free_bytes, 0, node.distances)
        for node in payload.nodes
    ]
    with pytest.raises(InputError, match="nothing tells how fast memory node 3 is"):
        machine_tiers(payload.model_copy(update={"nodes": silent}))
    with pytest.raises(InputError, match="memory node 9 can't be the local one"):
        machine_tiers(payload, 9)
