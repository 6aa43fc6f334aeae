"""Nodes, their CPUs, distances and the firmware's claims are read as the kernel documents them."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.core.memory import MemoryNode, nearest
from hgpu.profilers.memory_topology import cache_bytes, expand, read_topology

SYSFS = Path(__file__).parent / "sysfs"
NODES = Path("devices/system/node")
GIB = 2**30


def test_two_sockets_are_two_local_nodes() -> None:
    one, two = read_topology(SYSFS / "two-sockets")
    assert (one.cpus, two.cpus) == (tuple(range(16)), tuple(range(16, 32)))
    assert (one.total_bytes, one.free_bytes, one.available_bytes) == (128 * GIB, 96 * GIB, 98 * GIB)
    assert one.distances == {0: 10, 1: 21} and two.distances == {0: 21, 1: 10}
    assert not one.cxl_candidate and not two.cxl_candidate
    assert cache_bytes(SYSFS / "two-sockets") == 2 * 32 * 2**20


def test_memory_without_cpus_is_a_candidate_with_the_firmwares_claims() -> None:
    nodes = read_topology(SYSFS / "cxl")
    assert [node.cxl_candidate for node in nodes] == [False, False, True, True]
    card = nodes[2]
    assert card.cpus == () and card.total_bytes == 256 * GIB and card.initiators == (0,)
    assert (card.read_bytes_per_s, card.write_bytes_per_s) == (51.2e9, 25.6e9)
    assert card.read_latency_s == pytest.approx(250e-9) and card.write_latency_s == pytest.approx(260e-9)
    assert nodes[0].cpus == (*range(16), *range(32, 48))
    assert [nearest(node, nodes).node for node in nodes] == [0, 1, 0, 1]


def test_a_running_kernels_own_tree_is_read() -> None:
    local, near, far = read_topology(SYSFS / "qemu-cxl")
    assert [node.cxl_candidate for node in (local, near, far)] == [False, True, True]
    assert (local.cpus, local.initiators, near.initiators, far.initiators) == ((0, 1), (0,), (0,), (0,))
    assert local.distances == {0: 10, 1: 17, 2: 28}
    assert [node.read_bytes_per_s for node in (local, near, far)] == [204.8e9, 51.2e9, 25.6e9]
    assert far.read_latency_s == pytest.approx(400e-9)
    assert near.total_bytes == 515924 * 1024 and near.available_bytes == near.free_bytes
    assert cache_bytes(SYSFS / "qemu-cxl") == 16 * 2**20


def test_a_running_kernels_two_sockets_are_each_nearest_to_themselves() -> None:
    nodes = read_topology(SYSFS / "qemu-two-sockets")
    assert [node.cpus for node in nodes] == [(0,), (1,)]
    assert [node.initiators for node in nodes] == [(0,), (1,)]
    assert [nearest(node, nodes).node for node in nodes] == [0, 1]
    assert not any(node.cxl_candidate for node in nodes)


def test_without_claims_the_nearest_cpus_are_those_at_the_least_distance() -> None:
    far = MemoryNode(0, (0,), GIB, GIB, 0, {0: 10, 1: 21, 2: 24})
    near = MemoryNode(1, (1,), GIB, GIB, 0, {0: 21, 1: 10, 2: 14})
    card = MemoryNode(2, (), GIB, GIB, 0, {0: 24, 1: 14, 2: 10})
    assert nearest(card, [far, near, card]) == near


def test_a_machine_without_hmat_claims_nothing(tmp_path: Path) -> None:
    tree = copied("cxl", tmp_path)
    shutil.rmtree(tree / NODES / "node2" / "access0")
    (tree / NODES / "node3/access0/initiators/read_bandwidth").write_text("0\n")
    nodes = read_topology(tree)
    assert nodes[2].read_bytes_per_s is None and nodes[2].initiators == ()
    assert nodes[3].read_bytes_per_s is None and nodes[3].write_bytes_per_s == 25.6e9


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("node1/meminfo", None, "meminfo is missing"),
        ("online", None, "online is missing"),
        ("node1/meminfo", "Node 1 MemTotal: 1 kB\n", "no MemTotal and MemFree"),
        ("node1/distance", "10\n", "argument"),
        ("node0/cpulist", "zero\n", "invalid literal"),
    ],
)
def test_a_tree_that_is_not_as_documented_is_refused(
    tmp_path: Path, file: str, text: str | None, why: str
) -> None:
    tree = copied("two-sockets", tmp_path)
    path = tree / NODES / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match="can't read the memory nodes") as caught:
        read_topology(tree)
    assert why in caught.value.why


@given(st.sets(st.integers(0, 200)))
def test_ranges_are_expanded(numbers: set[int]) -> None:
    assert expand(",".join(map(str, sorted(numbers)))) == sorted(numbers)
    assert expand("0-3,8,10-11") == [0, 1, 2, 3, 8, 10, 11]


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(SYSFS / name, folder / name, symlinks=True))
