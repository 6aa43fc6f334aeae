"""Memory has the shape that a placement asks for, on the real kernel as far as one node goes."""

import mmap
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import HgpuError, InputError
from hgpu.profilers.memory_topology import read_topology
from hgpu.profilers.numa import Policy
from hgpu.profilers.numa_errors import usable_nodes
from hgpu.tuning.stripes import MOST_STRIPES, Stripe, stripes, unit_bytes
from hgpu.tuning.tiered_memory import TieredMemory, allocate, allocate_shares

PAGE = mmap.PAGESIZE
SHARES = st.lists(st.integers(1, 2**38), min_size=1, max_size=4).map(lambda sizes: list(enumerate(sizes)))


def here() -> int:
    return min(usable_nodes())


@pytest.mark.parametrize("policy", Policy)
def test_allocated_memory_is_where_it_was_asked_to_be(policy: Policy) -> None:
    made = allocate(5 * 2**20 + 1, [here()], policy)
    made.verify()
    assert made.residency() == {here(): 5 * 2**20 + PAGE}


def test_shares_on_one_node_are_bound_to_it_whole() -> None:
    made = allocate_shares([(here(), 2**20), (here() + 1, 0)])
    made.verify()
    assert made.laid == () and made.residency() == {here(): 2**20}


def test_a_page_of_a_stripe_that_lies_elsewhere_is_found() -> None:
    """Half of real memory is claimed to be on a node that this machine lacks."""
    made = allocate(100 * PAGE, [here()])
    other = here() + 1
    claimed = replace(
        made, nodes=(here(), other), laid=(Stripe(0, 60 * PAGE, here()), Stripe(60 * PAGE, 40 * PAGE, other))
    )
    with pytest.raises(HgpuError, match="40 of 100 pages aren't where") as caught:
        claimed.verify()
    assert f"page 60 lies on node {here()}, not on {other}" in caught.value.why


def test_a_page_outside_the_mask_is_found() -> None:
    made = allocate(4 * PAGE, [here()], Policy.INTERLEAVE)
    with pytest.raises(HgpuError, match="4 of 4 pages"):
        TieredMemory(made.memory, Policy.INTERLEAVE, (here() + 1, here() + 2)).verify()


def test_a_missing_node_and_too_little_memory_are_told_before_anything_is_reserved() -> None:
    nodes = read_topology()
    with pytest.raises(InputError, match="can't be placed on node"):
        allocate_shares([(here(), PAGE), (1000, PAGE)])
    with pytest.raises(InputError, match="nothing to place"):
        allocate_shares([(here(), 0)])
    full = [replace(node, free_bytes=2**20, reclaimable_bytes=0) for node in nodes]
    for policy in (Policy.BIND, Policy.INTERLEAVE, Policy.WEIGHTED_INTERLEAVE):
        with pytest.raises(HgpuError, match="too little memory"):
            allocate(2**21, [here()], policy, topology=full)
    allocate(2**21, [here()], Policy.PREFERRED_MANY, topology=full)


@given(SHARES)
def test_stripes_cover_everything_once_and_keep_every_share_to_within_a_unit(
    shares: list[tuple[int, int]],
) -> None:
    total = sum(size for _, size in shares)
    laid = stripes(shares)
    assert len(laid) <= MOST_STRIPES + 1
    ends = [stripe.start + stripe.size_bytes for stripe in laid]
    assert [stripe.start for stripe in laid] == [0, *ends[:-1]] and ends[-1] == total
    assert all(stripe.start % PAGE == 0 for stripe in laid)
    for node, size in shares:
        given_bytes = sum(stripe.size_bytes for stripe in laid if stripe.node == node)
        assert abs(given_bytes - size) <= 2 * unit_bytes(total)


def test_equal_shares_alternate() -> None:
    laid = stripes([(0, 64 * PAGE), (1, 64 * PAGE)])
    assert [stripe.node for stripe in laid] == [0, 1] * 64
