import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.slo import Objective, Slo
from hgpu.core.step import LatencyModel, StepBatch, StepModel, prefill_batch
from hgpu.core.workload import Bucket
from hgpu.latency.capacity import capacities

ENGINE = EngineOptions(max_num_batched_tokens=2048, max_num_seqs=256, max_model_len=8192)
STEP = StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, knee_tokens=200.0, sharpness=4.0)
LATENCY = LatencyModel(STEP, 400_000, 0.0, 0.0, 0.0, Provenance.FITTED)


def bucket(input_tokens: int, output_tokens: int) -> Bucket:
    return Bucket(
        0, input_tokens, 0, output_tokens, input_tokens, output_tokens, 1.0, input_tokens + output_tokens
    )


def rate(
    slo: Slo, input_tokens: int = 500, output_tokens: int = 100, latency: LatencyModel = LATENCY
) -> float:
    return capacities(latency, ENGINE, (bucket(input_tokens, output_tokens),), slo)[0].rate_rps


def test_a_lone_request_that_misses_the_objective_has_no_capacity_and_says_why() -> None:
    capacity = capacities(LATENCY, ENGINE, (bucket(500, 100),), Slo(tpot=Objective(0.010)))[0]
    assert capacity.rate_rps == 0
    assert capacity.lone_tpot_s > 0.017
    assert capacity.reason.startswith("TPOT of a lone request is") and "above 10 ms" in capacity.reason


def test_a_lone_request_waits_for_nobody_and_shares_no_step() -> None:
    """Its prompt is one step, and each further token one that holds it alone."""
    capacity = capacities(LATENCY, ENGINE, (bucket(500, 101),), Slo(tpot=Objective(0.1)))[0]
    assert capacity.lone_ttft_s == pytest.approx(STEP.step_s(prefill_batch(500)), rel=1e-3)
    alone = StepBatch(decode_seqs=1, decode_context_tokens=550.5)
    assert capacity.lone_tpot_s == pytest.approx(STEP.step_s(alone), rel=1e-3)


def test_with_decode_alone_the_step_at_capacity_takes_the_objective() -> None:
    """One prompt token and a median objective leave only Little's law: B = rate·(O−1)·TPOT."""
    limit_s = 0.025
    found = rate(Slo(tpot=Objective(limit_s, 50.0)), 1, 1000)
    seqs = 1 + found * 999 * limit_s
    batch = StepBatch(decode_seqs=seqs, decode_context_tokens=seqs * 501)
    assert STEP.step_s(batch) == pytest.approx(limit_s, rel=0.02)


def test_too_long_requests_are_forbidden_by_context_and_by_cache() -> None:
    slo = Slo(tpot=Objective(1.0))
    assert "max_model_len 8192" in capacities(LATENCY, ENGINE, (bucket(8000, 500),), slo)[0].reason
    small = LatencyModel(STEP, 600, 0.0, 0.0, 0.0, Provenance.FITTED)
    assert "KV cache of 600" in capacities(small, ENGINE, (bucket(500, 200),), slo)[0].reason


def test_every_chunk_of_a_lone_prompt_pays_for_having_prefill() -> None:
    slo = Slo(ttft=Objective(5.0), tpot=Objective(1.0))
    dear = replace(LATENCY, step=replace(STEP, prefill_s=0.010))
    one, other = (capacities(latency, ENGINE, (bucket(5000, 100),), slo)[0] for latency in (LATENCY, dear))
    assert other.lone_ttft_s - one.lone_ttft_s == pytest.approx(3 * 0.010, rel=0.01)  # budget 2048
    assert other.lone_tpot_s == pytest.approx(one.lone_tpot_s, rel=1e-3)
    assert 0 < other.rate_rps < one.rate_rps


def test_memory_bounds_the_rate_where_latency_does_not() -> None:
    slo = Slo(tpot=Objective(1.0))
    large = rate(slo, 2000, 1000)
    small = rate(slo, 2000, 1000, LatencyModel(STEP, 20_000, 0.0, 0.0, 0.0, Provenance.FITTED))
    assert 0 < small < 0.2 * large


@settings(max_examples=25)
@given(
    st.integers(1, 4000),
    st.integers(1, 2000),
    st.floats(0.02, 0.3),
    st.floats(1.0, 3.0),
    st.sampled_from([50.0, 90.0, 99.0]),
)
def test_a_looser_objective_never_lowers_the_capacity(
    input_tokens: int, output_tokens: int, limit_s: float, factor: float, percentile: float
) -> None:
    tight = rate(
        Slo(tpot=Objective(limit_s, percentile), ttft=Objective(2.0, percentile)), input_tokens, output_tokens
    )
    loose = rate(
        Slo(tpot=Objective(limit_s * factor, percentile), ttft=Objective(2.0 * factor, percentile)),
        input_tokens,
        output_tokens,
    )
    assert loose >= tight * (1 - 1e-6)
    assert math.isfinite(loose)


@settings(max_examples=25)
@given(st.integers(1, 2000), st.integers(2, 1000), st.floats(1.05, 3.0))
def test_a_faster_engine_never_has_less_capacity(
    input_tokens: int, output_tokens: int, factor: float
) -> None:
    slower = StepModel(2e-3 * factor, 15e-3 * factor, 4e-9 * factor, 1e-7 * factor, 2e-5 * factor, 200.0, 4.0)
    slo = Slo(tpot=Objective(0.08), ttft=Objective(1.5))
    fast = rate(slo, input_tokens, output_tokens)
    slow = rate(
        slo, input_tokens, output_tokens, LatencyModel(slower, 400_000, 0.0, 0.0, 0.0, Provenance.FITTED)
    )
    assert slow <= fast * (1 + 1e-6)
