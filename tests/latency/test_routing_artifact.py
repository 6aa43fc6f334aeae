"""A recording becomes artifacts that say what is in it, and give the trace back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hgpu.artifacts.store import load, save
from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.experts import CopySpeed, Link
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.latency.routing_artifact import record_of, routing_drafts, trace_of
from hgpu.profilers.experts import RoutingJob, RoutingResult
from hgpu.profilers.routing_record import RoutingRecord

COPIES = CopySpeed(Link.HOST, 1000, 5e9, 4e9, 6e9)


def recorded() -> RoutingRecord:
    """A prompt of one token, then two steps of two tokens each, through two layers of four experts."""
    ids = np.array(
        [[[0, 1], [2, 3]], [[0, 1], [2, 3]], [[0, 1], [0, 3]], [[2, 1], [0, 3]], [[2, 3], [0, 1]]], np.int32
    )
    gate = np.stack([np.full((5, 2), -1), [[2, 3], [3, 2], [0, 1], [0, 3], [2, 3]]], axis=1).astype(np.int32)
    step, prefill = np.array([0, 1, 1, 2, 2]), np.array([True, False, False, False, False])
    rows = np.array([0, 0, 1, 0, 1], np.int32)
    return RoutingRecord(ids, step, rows, rows, np.array([7, 8, 9, 8, 9]), prefill, gate)


def test_an_artifact_says_what_was_recorded_and_gives_it_back(tmp_path: Path) -> None:
    model = load_model("Qwen/Qwen3-30B-A3B")
    job = RoutingJob(
        "m", OperatingPoint("cpu-1core"), resolve_gpu("cpu-1core"), ("a", "b"), batches=(2, 1), tokens=3
    )
    record = recorded()
    alone = replace(record, next_gate=None)
    result = RoutingResult({2: record, 1: alone}, 4, COPIES, "vllm 0.32.0", "", "a machine")
    two, one = (load(save(tmp_path, draft).path) for draft in routing_drafts(model, job, result))
    payload = two.payload
    assert (payload.batch, payload.provenance) == (2, Provenance.MEASURED)
    assert (payload.layers, payload.experts, payload.per_token) == (2, 4, 2)
    assert (payload.steps, payload.prefill_tokens, payload.decode_tokens) == (3, 1, 4)
    assert payload.distinct_experts == (2 + 3 + 3 + 3) / 4
    assert payload.next_gate_recall == [(2 + 1 + 2 + 0) / 8]
    assert (payload.model, payload.copies) == (model, COPIES)
    trace = trace_of(two)
    assert trace.experts == 4
    np.testing.assert_array_equal(trace.ids, record.ids)
    np.testing.assert_array_equal(trace.steps, record.step)
    np.testing.assert_array_equal(record_of(two).position, record.position)
    assert (one.payload.batch, one.payload.next_gate_recall, trace_of(one).next_gate) == (1, None, None)
    assert two.payload.distinct_experts == pytest.approx(one.payload.distinct_experts)
