import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.catalog.models import load_model
from hgpu.core.errors import InvalidMeasurement
from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.step import StepBatch, StepModel
from hgpu.latency.fit import KNEES, fit
from hgpu.profilers.design import batches, design
from hgpu.profilers.samples import Sample

MODEL = load_model("meta-llama/Llama-3.1-8B")
TRUE = StepModel(2e-3, 15e-3, 4e-9, 1e-7, 2e-5, knee_tokens=200.0, sharpness=4.0)
ENGINE = EngineOptions(max_num_batched_tokens=2048, max_num_seqs=128)


def samples_of(step: StepModel, noise: float = 0.0, seed: int = 0) -> list[Sample]:
    rng = random.Random(seed)
    return [
        Sample(script.name, batch, step.step_s(batch) * rng.lognormvariate(0, noise), repeats=3, spread=noise)
        for script in design(ENGINE, 32_768)
        for batch in batches(script, ENGINE.max_num_batched_tokens)
    ]


def test_a_known_model_is_found_again() -> None:
    result = fit(samples_of(TRUE), MODEL, 100_000, Provenance.MEASURED)
    assert result.latency.median_error < 0.005 and result.latency.p90_error < 0.03
    assert result.latency.provenance is Provenance.FITTED
    for tokens in (1, 10, 150, 1000):
        batch = StepBatch(decode_seqs=tokens, decode_context_tokens=tokens * 300)
        assert result.latency.step.step_s(batch) == pytest.approx(TRUE.step_s(batch), rel=0.05)


@pytest.mark.parametrize("prefill_s", [0.0, 0.5e-3, 3e-3])
def test_the_cost_of_any_prefill_is_found_again(prefill_s: float) -> None:
    """The knee lies on the grid, so that the model can be found exactly."""
    true = replace(TRUE, knee_tokens=KNEES[23], prefill_s=prefill_s)
    result = fit(samples_of(true), MODEL, 100_000, Provenance.MEASURED)
    assert result.latency.step.prefill_s == pytest.approx(prefill_s, abs=1e-7)
    assert result.latency.p90_error < 1e-4


def test_noise_shows_in_the_error_and_is_not_fitted_away() -> None:
    result = fit(samples_of(TRUE, noise=0.1), MODEL, 100_000, Provenance.MEASURED)
    assert 0.03 < result.latency.median_error < 0.15
    assert result.latency.noise == pytest.approx(0.1)
    assert {row.phase for row in result.errors} == {"prefill", "decode", "mixed"}


def test_order_of_samples_does_not_matter() -> None:
    forward = samples_of(TRUE, noise=0.05)
    shuffled = random.Random(1).sample(forward, len(forward))
    one, two = (fit(rows, MODEL, 1, Provenance.MEASURED).latency for rows in (forward, shuffled))
    assert one.step.overhead_s == pytest.approx(two.step.overhead_s, rel=1e-6)
    assert one.median_error == pytest.approx(two.median_error, rel=1e-6)


def test_estimates_stay_estimates() -> None:
    assert fit(samples_of(TRUE), MODEL, 1, Provenance.ESTIMATED).latency.provenance is Provenance.ESTIMATED


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InvalidMeasurement) as caught:
        fit(samples_of(TRUE)[:8], MODEL, 1, Provenance.MEASURED)
    assert caught.value.exit_code == 4


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.0, 0.6), st.sampled_from([0.0, 3e-3]))
def test_predictions_are_positive_and_never_fall_with_a_larger_batch(
    seed: int, noise: float, prefill_s: float
) -> None:
    samples = samples_of(replace(TRUE, prefill_s=prefill_s), noise, seed)
    step = fit(samples, MODEL, 1, Provenance.MEASURED).latency.step
    rng = np.random.default_rng(seed)
    for _ in range(20):
        small = rng.uniform(0, 500, size=6)
        large = small + rng.uniform(0, 500, size=6)
        before, after = step.step_s(StepBatch(*small)), step.step_s(StepBatch(*large))
        assert 0 < before <= after * (1 + 1e-12)


def test_a_mixture_of_experts_reads_fewer_weights_for_few_tokens() -> None:
    model = load_model("Qwen/Qwen3-30B-A3B")
    share = model.moe_layers * model.experts * model.expert_bytes
    true = StepModel(
        1e-3, 20e-3, 4e-9, 1e-7, 0.0, 800.0, 8.0, 1 - 8 / 128, share / (share + model.dense_params * 2)
    )
    result = fit(samples_of(true), model, 1, Provenance.MEASURED)
    assert result.latency.median_error < 0.01
    one, many = (result.latency.step.step_s(StepBatch(decode_seqs=n)) for n in (1, 128))
    assert one < 0.35 * many
