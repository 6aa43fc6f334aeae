"""The benchmark of expert caches: its bound is one, and prompts as decodes keep their routes."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.core.experts import ExpertPolicy
from hgpu.latency.expert_hints import hints_of
from hgpu.latency.expert_replay import replay
from hgpu.latency.routing import RoutingTrace
from hgpu.profilers.routing_record import RoutingRecord

FILE = Path(__file__).parents[2] / "benchmarks" / "experts" / "policies.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("expert_policies", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


policies = loaded()


def trace_of(seed: int, steps: int, tokens: int) -> RoutingTrace:
    """Four of 32 experts a token in two layers, skewed to the lower numbers."""
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, 33)
    rows = steps * tokens
    ids = [[random.choice(32, 4, False, weights / weights.sum()) for _ in range(2)] for _ in range(rows)]
    numbers = np.repeat(np.arange(steps), tokens)
    return RoutingTrace(32, np.array(ids, np.int32), numbers, numbers, np.zeros(rows, bool))


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 8), st.sampled_from([4, 8, 16, 32]))
def test_no_policy_loads_less_than_the_bound(seed: int, steps: int, tokens: int, slots: int) -> None:
    trace = trace_of(seed, steps, tokens)
    bound = policies._kept(trace, slots, foresees=True)
    distinct = sum(len(np.unique(ids)) for layer in range(2) for ids in trace.each_step(layer))
    assert bound.needs == distinct
    assert bound.misses <= policies._kept(trace, slots, foresees=False).misses <= distinct
    for policy in ExpertPolicy:
        for wide in (True, False):
            counts = replay(trace, slots, policy, hints_of(trace), wide=wide).total
            pinned = slots - 4 if policy in (ExpertPolicy.STATIC, ExpertPolicy.PINNED_LFU) else 0
            assert bound.misses <= counts.misses + 2 * pinned


def test_the_bound_keeps_what_is_needed_again_first() -> None:
    rows = [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]]
    ids = np.array(rows, np.int32)[:, None, :]
    trace = RoutingTrace(32, ids, np.arange(4), np.arange(4), np.zeros(4, bool))
    assert [policies._kept(trace, slots, True).misses for slots in (4, 6, 8)] == [12, 10, 8]


def test_prompts_as_decodes_keep_their_tokens_and_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "TEXT_TOKENS", 3)
    request = np.repeat(np.arange(4), [4, 3, 2, 5]).astype(np.int32)  # the third is too short
    rows = np.arange(len(request))
    ids = np.stack([rows % 32, (rows + 1) % 32], axis=1).astype(np.int32)[:, None, :]
    prefill = np.array([True] * 4 + [True] * 3 + [True] * 2 + [True] * 4 + [False])
    record = RoutingRecord(ids, rows * 0, request, request, rows, prefill)
    trace = policies._as_decoded(record, 2)
    assert trace.tokens.tolist() == [0, 4, 1, 5, 2, 6]
    assert trace.steps.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(trace.ids, ids[[0, 4, 1, 5, 2, 6]])
