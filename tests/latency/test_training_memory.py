"""Memory of a training step: the closed form, the moments, and what must hold of any variant."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latency.trainings import FULL, LAMDA, LORA, TARGETS, VARIANTS, activations, peak_bytes, training

from hgpu.core.gpu import DType
from hgpu.core.training import Offload, Sharding, Variant
from hgpu.core.training_tensors import host_bytes
from hgpu.latency.training_memory import host_tensors, moments, peak


@pytest.mark.parametrize(
    ("variant", "mixed", "measured"),
    [(FULL, False, 225_400), (FULL, True, 261_240), (LORA, True, 292_280), (LAMDA, True, 159_160)],
)
def test_the_closed_form_is_what_was_measured_of_qwen(variant: Variant, mixed: bool, measured: float) -> None:
    """Bytes a layer and token in bf16; `hgpu profile` of this model, 2026-11-28."""
    asked = training(mixed=mixed)
    assert activations(asked, variant).saved.layer_token == pytest.approx(measured, rel=1e-3)


def test_loras_savings_vanish_at_long_context() -> None:
    """Over 16 bits, each adapter keeps a copy of its input in fp32: more than a full fine-tune saves."""
    plain = training(mixed=False)
    assert activations(plain, LORA).saved.layer_token > activations(plain, FULL).saved.layer_token
    saved = [1 - peak_bytes(training(c, mixed=False), LORA) / peak_bytes(training(c, mixed=False), FULL)
             for c in (512, 32_768)]  # fmt: skip
    assert saved[0] > 0.5 and saved[1] < 0.1
    assert peak_bytes(training(32_768), LAMDA) < 0.7 * peak_bytes(training(32_768), LORA)


def test_a_full_fine_tune_keeps_16_bytes_a_parameter_in_fp32() -> None:
    asked = training(64, DType.FP32)
    step = moments(asked, FULL, activations(asked, FULL))[-1]
    states = step.device["weights"] + step.device["gradients"] + step.device["optimizer"]
    assert states == 16 * asked.model.total_params
    assert peak(moments(asked, FULL, activations(asked, FULL))).name == "optimizer step"


def test_sharded_processes_keep_their_part_of_16_bytes_and_gather_in_16_bits() -> None:
    """As `hgpu tune` shards by FSDP2, which gathers the next of its parts while one computes."""
    asked, variant = training(64), replace(FULL, dp=8, sharding=Sharding.ZERO3)
    *passes, step = moments(asked, variant, activations(asked, variant))
    gathered = 2 * 2 * asked.largest_layer_params
    states = step.device["weights"] + step.device["gradients"] + step.device["optimizer"]
    assert states == pytest.approx(gathered + 16 * asked.model.total_params / 8)
    undivided = passes[-1].device["gradients"] - step.device["gradients"]
    assert undivided == pytest.approx((2 + 4) * asked.largest_layer_params)
    assert asked.convention_text(variant) == "FSDP2: 16 bytes a parameter"


@pytest.mark.parametrize("variant", [LORA, LAMDA])
def test_adapters_are_whole_where_the_frozen_weights_are_sharded(variant: Variant) -> None:
    asked, parts = training(64), replace(variant, dp=8, sharding=Sharding.ZERO3)
    one, many = (moments(asked, it, activations(asked, it))[-1].device for it in (variant, parts))
    assert (many["gradients"], many["optimizer"]) == (one["gradients"], one["optimizer"])
    divided = 2 * asked.model.total_params * (1 - 1 / 8) - 2 * 2 * asked.largest_layer_params
    assert one["weights"] - many["weights"] == pytest.approx(divided)


def test_plain_copies_sum_gradients_in_messages_of_a_bounded_size() -> None:
    asked = training(64)
    one, many = (moments(asked, it, activations(asked, it))[-1].device for it in (FULL, replace(FULL, dp=8)))
    assert many["gradients"] - one["gradients"] == 64 * 2**20 and many["weights"] == one["weights"]


def test_offloading_keeps_20p_and_the_checkpoints_on_the_host() -> None:
    asked = training(4096)
    variant = replace(FULL, offload=Offload.ZERO3, checkpointing=True, micro_batch=16)
    tensors = host_tensors(asked, variant)
    params, kept = asked.model.total_params, 2 * 16 * 4096 * 3584 * 28
    assert host_bytes(tensors) == 20 * params + kept
    (moment, *_) = moments(asked, variant, activations(asked, variant))
    assert moment.host_bytes == 20 * params + kept
    assert moment.host["optimizer"] == 12 * params and moment.host["activations"] == kept
    assert moment.device["optimizer"] == 0 == moment.device["gradients"]


def test_adapters_offload_frozen_weights_alone() -> None:
    asked = training(4096)
    tensors = host_tensors(asked, replace(LORA, offload=Offload.ZERO3))
    assert [str(tensor.name) for tensor in tensors] == ["bf16_weights"]
    assert sum(tensor.optimizer_bytes for tensor in tensors) == 0


def test_lamda_frees_gradients_and_optimizer_states_as_b_freezes() -> None:
    asked = training(64)
    *_, before, after = moments(asked, LAMDA, activations(asked, LAMDA))
    squares = 16 * 16 * 28 * len(TARGETS)
    assert after.name == "optimizer step, B frozen"
    assert after.device["optimizer"] == 8 * squares < before.device["optimizer"] / 100
    assert after.device["weights"] == before.device["weights"]  # B stays, as it is needed


@given(VARIANTS, st.integers(1, 60_000))
def test_a_longer_context_or_more_sequences_never_take_less(variant: Variant, context: int) -> None:
    least = peak_bytes(training(context), variant)
    assert peak_bytes(training(2 * context), variant) >= least
    assert peak_bytes(training(context), replace(variant, micro_batch=2 * variant.micro_batch)) >= least


@given(VARIANTS, st.integers(1, 60_000))
def test_checkpointing_takes_less_when_all_layers_are_saved(variant: Variant, context: int) -> None:
    asked = training(context)
    kept, recomputed = (replace(variant, checkpointing=flag) for flag in (False, True))
    (first, *_), (other, *_) = (moments(asked, v, activations(asked, v)) for v in (kept, recomputed))
    assert other.device_bytes < first.device_bytes


@pytest.mark.parametrize("copies", [2, 8])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_sharding_divides_states_over_the_copies(copies: int, checkpointing: bool) -> None:
    variant = replace(FULL, dp=copies, checkpointing=checkpointing)
    asked = training(1024)
    whole, parts = (replace(variant, sharding=sharding) for sharding in (Sharding.NONE, Sharding.ZERO3))
    assert peak_bytes(asked, parts) < peak_bytes(asked, whole)
    (first, *_), (other, *_) = (moments(asked, v, activations(asked, v)) for v in (whole, parts))
    assert other.device["optimizer"] == pytest.approx(first.device["optimizer"] / variant.dp)
