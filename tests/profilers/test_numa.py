"""Pages lie where they were asked to, and what the kernel refuses is a clear error. On the real kernel."""

import errno
import os
import platform
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hgpu.core.errors import HgpuError, InputError
from hgpu.core.memory import MemoryNode
from hgpu.profilers.memory_topology import read_topology
from hgpu.profilers.numa import NUMBERS, Policy, nodes_of_pages, place, reserve, touch
from hgpu.profilers.numa_errors import SPARE_BYTES, refusal, require_room, usable_nodes

SECCOMP = Path(__file__).parent / "seccomp_once.py"
MIB = 2**20
NODE = MemoryNode(0, (0,), 8 * 2**30, 2**30, 2**29, {0: 10})


def here() -> int:
    return min(usable_nodes())


@pytest.mark.parametrize("policy", Policy)
def test_every_page_lies_on_the_node_it_was_given(policy: Policy) -> None:
    memory = reserve(8 * MIB + 4096)
    place(memory, policy, [here()])
    touch(memory)
    assert nodes_of_pages(memory).tolist() == [here()] * 2049


def test_a_page_that_nobody_touched_has_no_node() -> None:
    memory = reserve(3 * 4096)
    memory[4096] = 1
    before, touched, after = nodes_of_pages(memory).tolist()
    assert touched in usable_nodes() and before == after == -errno.ENOENT


def test_a_part_of_memory_can_be_placed() -> None:
    memory = reserve(64 * 4096)
    place(memory, Policy.BIND, [here()], start=16 * 4096, size_bytes=8 * 4096)
    touch(memory)
    assert np.all(nodes_of_pages(memory) >= 0)


@pytest.mark.parametrize("extra", [1000, 5000, -1])
def test_a_missing_node_is_named_also_beside_one_that_is_there(extra: int) -> None:
    for nodes in ([extra], [here(), extra]):
        with pytest.raises(InputError, match=f"can't be placed on node .*{extra}") as caught:
            place(reserve(4096), Policy.INTERLEAVE, nodes)
        assert str(here()) in caught.value.why and caught.value.exit_code == 2


def test_no_node_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="none named"):
        place(reserve(4096), Policy.BIND, [])


def test_a_node_with_too_little_memory_is_refused_before_the_kernel_kills_for_it() -> None:
    require_room([NODE], [([0], 2**30 + 2**29 - SPARE_BYTES)])
    with pytest.raises(HgpuError, match="memory node 0 has too little memory") as caught:
        require_room([NODE], [([0], 2**30 + 2**29 - SPARE_BYTES + 1)])
    assert "1.50 GiB are available" in caught.value.why
    require_room([NODE, replace(NODE, node=1)], [([0, 1], 2 * 2**30)])


def test_a_limit_of_address_space_is_an_error_and_not_a_crash() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    code = "from hgpu.profilers.numa import reserve\nreserve(2 * 2**30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limit)
    assert "can't reserve 2.00 GiB of memory" in done.stderr and "Cannot allocate memory" in done.stderr


@pytest.mark.parametrize(
    ("call", "number", "text"),
    [
        ("mbind", errno.EPERM, "not allowed to place memory on nodes"),
        ("mbind", errno.ENOSYS, "this kernel can't place memory on nodes"),
        ("mbind", errno.EINVAL, "this kernel doesn't place memory by WEIGHTED_INTERLEAVE"),
        ("mbind", errno.ENOMEM, "no memory is left"),
        ("mbind", errno.EIO, "existing pages can't be moved"),
        ("move_pages", errno.EPERM, "not allowed to place memory on nodes"),
    ],
)
def test_a_kernel_that_refuses_is_explained(call: str, number: int, text: str) -> None:
    """The kernel itself refuses, as a container's filter makes it do."""
    code = (
        "from hgpu.profilers.numa import *; from hgpu.profilers.numa_errors import usable_nodes; "
        "m = reserve(4096); place(m, Policy.WEIGHTED_INTERLEAVE, [min(usable_nodes())]); nodes_of_pages(m)"
    )
    words = [sys.executable, str(SECCOMP), str(NUMBERS[platform.machine()][call]), str(number), code]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("this kernel doesn't let a process filter its own calls")
    assert text in done.stderr and f"{call}: {os.strerror(number)}" in done.stderr


def test_an_errno_without_a_meaning_of_its_own_is_still_told() -> None:
    assert "Bad address" in refusal("mbind", errno.EFAULT).why


def test_this_machine_has_the_node_that_its_pages_lie_on() -> None:
    nodes = {node.node: node for node in read_topology()}
    node = nodes[here()]
    assert node.cpus and 0 < node.free_bytes < node.total_bytes and not node.cxl_candidate
    assert node.distances[here()] == 10
