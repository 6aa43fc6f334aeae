"""A memory profile measures this machine's nodes for real, and says when it isn't to be believed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hgpu.artifacts.payloads.memory import AdamRow, MemoryPayload
from hgpu.core.errors import HgpuError, InputError
from hgpu.core.provenance import Provenance
from hgpu.profilers.memory import MemoryJob, describe_memory, profile_memory, validity
from hgpu.profilers.memory_adam import adam_step
from hgpu.profilers.memory_bandwidth import thread_counts
from hgpu.profilers.memory_timing import OthersMeter, bound_to, placed_array, time_together
from hgpu.profilers.memory_topology import read_topology
from hgpu.profilers.numa_errors import usable_nodes

SYSFS = Path(__file__).parent / "sysfs"
MIB = 2**20


def test_all_nodes_are_measured_at_all_thread_counts() -> None:
    told: list[tuple[int, int]] = []
    job = MemoryJob(repeats=3, array_bytes=4 * MIB, adam_elements=(10_000, 50_000))
    payload, found = profile_memory(job, lambda done, total, _: told.append((done, total)))
    cores = len(os.sched_getaffinity(0))
    assert {row.node for row in payload.bandwidth} == usable_nodes()
    assert {row.threads for row in payload.bandwidth} == set(thread_counts(cores))
    assert {row.traffic for row in payload.bandwidth} == {"read", "copy", "add"}
    assert [row.elements for row in payload.adam] == [10_000, 50_000]
    assert all(len(row.seconds) == 3 for row in (*payload.bandwidth, *payload.adam))
    for row in payload.bandwidth:
        assert min(row.seconds) <= sorted(row.seconds)[1] <= max(row.seconds) and row.bytes_per_s > 1e8
    assert payload.provenance is Provenance.MEASURED
    assert told == [(number + 1, len(told)) for number in range(len(told))]
    assert payload.others_share is not None and 0 <= payload.others_share <= 1
    assert not found.valid and "aren't 4 times the caches'" in found.reasons[-1]
    assert MemoryPayload.model_validate_json(payload.model_dump_json()) == payload


def test_a_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="memory node 77 can't be measured"):
        profile_memory(MemoryJob(nodes=(77,)), lambda *_: None)


def test_more_than_the_node_has_is_refused_before_anything_is_touched() -> None:
    node = read_topology()[0]
    with pytest.raises(HgpuError, match="too little memory"):
        placed_array(node, node.total_bytes * 2)


@pytest.mark.parametrize(("spreads", "valid"), [((0.1, 0.2, 2.0), True), ((0.1, 0.3, 0.3), False)])
def test_a_profile_is_invalid_where_the_median_row_is_noisy(spreads: tuple[float, ...], valid: bool) -> None:
    payload = describe_memory(SYSFS / "cxl").model_copy(update={"others_share": 0.1})
    rows = [row(spread) for spread in spreads]
    found = validity(payload.model_copy(update={"adam": rows}), 4 * payload.cache_bytes)
    assert found.valid is valid and (valid or "the machine was busy" in found.reasons[0])


def test_a_profile_is_invalid_where_others_took_the_cpus() -> None:
    payload = describe_memory(SYSFS / "cxl").model_copy(update={"others_share": 0.11})
    assert validity(payload, 2**40).reasons == ["other processes took 11% of the CPUs"]


def test_what_another_process_burns_is_seen() -> None:
    meter = OthersMeter()
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert meter.others_share() * os.cpu_count() > 0.1


def row(spread: float) -> AdamRow:
    return AdamRow(
        node=0, cpu_node=0, threads=1, implementation="numpy", elements=1, elements_per_s=1.0, seconds=[1.0],
        spread=spread,
    )  # fmt: skip


def test_a_recorded_tree_is_described_and_not_measured() -> None:
    payload = describe_memory(SYSFS / "cxl")
    assert payload.provenance is Provenance.ESTIMATED and not payload.bandwidth and not payload.adam
    assert len(payload.nodes) == 4 and payload.notes == ["read from cxl: nothing was measured"]


def test_work_is_timed_together_and_its_failure_is_told() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    calls: list[int] = []
    seconds = time_together([lambda: calls.append(1)], cpus[:1], repeats=4)
    assert len(seconds) == 4 and len(calls) == 5
    with pytest.raises(HgpuError, match="a thread that measures failed"):
        time_together([lambda: 1 / 0], cpus[:1], repeats=2)


def test_binding_holds_for_the_block_only() -> None:
    before = os.sched_getaffinity(0)
    with bound_to(sorted(before)[:1]):
        assert os.sched_getaffinity(0) == set(sorted(before)[:1])
    assert os.sched_getaffinity(0) == before


def test_the_numpy_step_is_adam() -> None:
    """Against the textbook's formula in float64."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=64).astype(np.float32)
    gradients = rng.normal(size=64).astype(np.float32)
    expected, m, v = weights.astype(float), np.zeros(64), np.zeros(64)
    arrays = [weights, gradients, np.zeros(64, np.float32), np.zeros(64, np.float32)]
    step = adam_step(arrays)
    for taken in range(1, 6):
        step()
        m = 0.9 * m + 0.1 * gradients
        v = 0.999 * v + 0.001 * gradients.astype(float) ** 2
        update = m / (1 - 0.9**taken) / (np.sqrt(v / (1 - 0.999**taken)) + 1e-8)
        expected = expected * (1 - 1e-4 * 0.01) - 1e-4 * update
    assert np.allclose(weights, expected, rtol=0, atol=1e-6)


def test_thread_counts_double_up_to_all() -> None:
    assert [thread_counts(cores) for cores in (1, 2, 6, 16)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]]
