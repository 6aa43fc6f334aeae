"""Computed profiles: they grow with the work, shrink with the hardware, and say what they are."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.errors import Infeasible
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.provenance import Provenance
from hgpu.core.step import StepBatch, prefill_batch
from hgpu.latency.fit import fit
from hgpu.profilers.efficiency import Efficiency, efficiency_of
from hgpu.profilers.estimate import Roofline, estimate

MODEL = load_model("meta-llama/Llama-3.1-8B")
H100 = resolve_gpu("H100-SXM")
POINT = OperatingPoint(H100.name)


def test_a_profile_says_that_it_is_computed() -> None:
    result = estimate(MODEL, H100, POINT)
    assert (result.profiler, result.provenance) == ("estimate", Provenance.ESTIMATED)
    assert result.assumptions["bandwidth"] == efficiency_of(H100, MODEL.weight_dtype).bandwidth
    assert result.kv_capacity_tokens > 100_000
    assert {sample.batch.phase for sample in result.samples} == {"prefill", "decode", "mixed"}


def test_the_step_model_can_describe_it() -> None:
    result = estimate(MODEL, H100, POINT)
    fitted = fit(result.samples, MODEL, result.kv_capacity_tokens, result.provenance)
    assert fitted.latency.median_error < 0.05
    assert fitted.latency.provenance is Provenance.ESTIMATED


@settings(deadline=None)
@given(st.integers(1, 4096), st.integers(0, 4096), st.integers(0, 256))
def test_more_work_is_never_faster(tokens: int, context: int, seqs: int) -> None:
    roofline = Roofline(MODEL, H100, 1, Efficiency())
    small = replace(prefill_batch(tokens, context), decode_seqs=seqs, decode_context_tokens=seqs * 100)
    large = replace(prefill_batch(tokens + 1, context), decode_seqs=seqs, decode_context_tokens=seqs * 101)
    assert roofline.step_s(large) >= roofline.step_s(small) > 0


def test_a_small_decode_step_reads_the_weights() -> None:
    exact = Efficiency(bandwidth=1.0, step_overhead_s=0.0, sequence_overhead_s=0.0)
    step_s = Roofline(MODEL, H100, 1, exact).step_s(StepBatch(decode_seqs=1))
    assert step_s == pytest.approx(MODEL.step_weight_bytes(1) / H100.memory_bandwidth_bytes_per_s)


def test_what_does_not_fit_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="doesn't fit"):
        estimate(load_model("meta-llama/Llama-3.1-70B"), resolve_gpu("L4"), OperatingPoint("L4"))


def test_an_8_bit_cache_holds_twice_the_tokens_and_is_read_in_half_the_time() -> None:
    plain = estimate(MODEL, H100, POINT)
    small = estimate(MODEL, H100, OperatingPoint(H100.name, engine=EngineOptions(kv_cache_dtype=DType.FP8)))
    assert small.kv_capacity_tokens in (2 * plain.kv_capacity_tokens, 2 * plain.kv_capacity_tokens + 1)

    def read_s(dtype: DType | None, context: int = 8192) -> float:
        roofline = Roofline(MODEL.cached_in(dtype), H100, 1, Efficiency())
        near, far = (StepBatch(decode_seqs=1, decode_context_tokens=tokens) for tokens in (0, context))
        return roofline.step_s(far) - roofline.step_s(near)

    assert read_s(DType.FP8) == pytest.approx(read_s(None) / 2)
    assert read_s(DType.BF16) == read_s(None)
    by_batch = {sample.batch: sample.step_s for sample in plain.samples}
    shared = [(s.step_s, by_batch[s.batch]) for s in small.samples if s.batch in by_batch]
    assert len(shared) > 20 and all(fast <= slow for fast, slow in shared)
    assert any(fast < slow for fast, slow in shared)


def test_a_cache_format_scales_the_windowed_layers_too() -> None:
    model = load_model("google/gemma-2-9b")
    small = model.cached_in(DType.FP8)
    assert small.window_kv_bytes_per_token > 0
    assert small.kv_bytes(10_000) == model.kv_bytes(10_000) / 2
    assert small.cached_in(model.kv_dtype) == model
    assert model.cached_in(None) is model
