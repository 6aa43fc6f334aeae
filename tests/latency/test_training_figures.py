"""The published figures of fine-tuning come out exactly."""

import pytest

from hgpu.catalog.linears import linears_of, targeted
from hgpu.catalog.models import load_config, load_model
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.training import Linear, params_of
from hgpu.latency.training_counts import frozen_count, lamda_count, lora_count
from hgpu.latency.training_states import Convention, checkpointed_bytes, state_bytes, zero3_needs

GIB = 2**30
LLAMA_2_TARGETS = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(
    ("name", "params", "batch", "context", "states_gb", "checkpoints_gb"),
    [
        ("Qwen2.5-7B", 7_615_616_512, 16, 4096, 152.3, 13.15),
        ("Mistral-Nemo-Base-2407", 12_247_782_400, 1, 32768, 245.0, 13.42),
    ],
)
def test_the_20p_totals_of_the_paper(
    name: str, params: int, batch: int, context: int, states_gb: float, checkpoints_gb: float
) -> None:
    model = load_model(name)
    assert model.total_params == params
    assert state_bytes(Convention.PAPER).total == 20
    assert round(20 * params / 1e9, 1) == states_gb
    kept = checkpointed_bytes(1, batch, context, model.hidden_size, model.layers)
    assert round(kept / 1e9, 2) == checkpoints_gb


def t5_3b_params() -> int:
    """T5-3B: 24 encoder and 24 decoder layers, d_model 1024, 32 heads of 128, d_ff 16384."""
    attention, feed_forward, norm = 4 * 1024 * 4096, 2 * 1024 * 16384, 1024
    encoder = attention + feed_forward + 2 * norm
    decoder = 2 * attention + feed_forward + 3 * norm
    positions = 2 * 32 * 32  # relative positions, of each stack's first layer
    return 24 * (encoder + decoder) + 32128 * 1024 + 2 * norm + positions


@pytest.mark.parametrize(
    ("optimizer_on_host", "weights_on_host", "host_gb", "gpu_gb"),
    [(True, True, 71.71, 0.12), (True, False, 63.74, 0.79), (False, False, 1.47, 6.10)],
)
def test_deepspeeds_row_of_t5_3b_on_8_gpus(
    optimizer_on_host: bool, weights_on_host: bool, host_gb: float, gpu_gb: float
) -> None:
    """DeepSpeed prints two decimals of 2³⁰ bytes."""
    needs = zero3_needs(
        t5_3b_params(),
        32128 * 1024,
        8,
        optimizer_on_host=optimizer_on_host,
        weights_on_host=weights_on_host,
    )
    assert (round(needs.host_bytes / GIB, 2), round(needs.gpu_bytes / GIB, 2)) == (host_gb, gpu_gb)


def test_lamdas_counts_of_llama_2_7b() -> None:
    targets = targeted(linears_of(load_config("Llama-2-7b-hf"), "Llama-2-7b-hf"), LLAMA_2_TARGETS)
    count = lamda_count(targets, 32, 0.3)
    assert (count.final, count.peak - count.final) == (163_840, 28_049_408)
    assert round(count.mean) == 4_371_251
    assert lora_count(targets, 16).peak == 28_049_408
    assert frozen_count(targets, 32) == 32 * 32 * (4 * 4096 + 11008)


def test_lamdas_counts_of_deberta_v3_base() -> None:
    """72 linears: q, k, v and o of 768 × 768, and 768 × 3072 and back, in 12 layers."""
    targets = (
        Linear("attention", 768, 768, 48),
        Linear("intermediate", 768, 3072, 12),
        Linear("output", 3072, 768, 12),
    )
    lora, lamda = lora_count(targets, 8).final, lamda_count(targets, 32, 0.3).final
    assert (lora, lamda) == (1_327_104, 73_728)
    head = 2 * 768  # the classifier's weights
    assert lamda + head == 75_264
    assert lora / (lamda + head) == pytest.approx(17.6, abs=0.05)
    assert (lora + head) / (lamda + head) == pytest.approx(17.65, abs=0.05)


@pytest.mark.parametrize("name", ["Qwen2.5-7B", "Llama-3.1-8B", "Qwen3-8B", "gemma-2-9b"])
def test_the_linear_modules_hold_nearly_all_of_a_model(name: str) -> None:
    model = load_model(name)
    rest = model.dense_params - params_of(linears_of(load_config(name), name))
    head = model.vocab_size * model.hidden_size
    assert 0 < rest - head < 0.001 * model.dense_params  # norms and biases


def test_unknown_modules_and_families_are_named() -> None:
    linears = linears_of(load_config("Qwen3-30B-A3B"), "Qwen3-30B-A3B")
    assert [linear.name for linear in linears] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    with pytest.raises(UnknownName, match="target module 'up_proj'"):
        targeted(linears, ["up_proj"])
    with pytest.raises(InputError, match="aren't known"):
        linears_of(load_config("DeepSeek-V3"), "DeepSeek-V3")
