import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.catalog.model_config import parse_config
from hgpu.catalog.models import ALIASES, bundled_models, load_model
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.gpu import DType
from hgpu.core.model import ModelSpec

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
MOE = LLAMA | {"num_local_experts": 8, "num_experts_per_tok": 2, "model_type": "mixtral"}


def spec(**changes: Any) -> ModelSpec:
    return parse_config(LLAMA | changes, "test", None)


def bundled(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(bundled_models()[name].read_text(encoding="utf-8"))
    return config


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("meta-llama/Llama-2-7b-hf", 6.738e9),
        ("meta-llama/Llama-2-70b-hf", 68.98e9),
        ("meta-llama/Llama-3.1-8B", 8.030e9),
        ("meta-llama/Llama-3.1-70B", 70.55e9),
        ("meta-llama/Llama-3.2-1B", 1.236e9),
        ("Qwen/Qwen2.5-3B", 3.086e9),
        ("Qwen/Qwen2.5-7B", 7.616e9),
        ("Qwen/Qwen3-8B", 8.19e9),
        ("Qwen/Qwen3-32B", 32.76e9),
        ("Qwen/Qwen3-30B-A3B", 30.53e9),
        ("mistralai/Mistral-7B-v0.3", 7.248e9),
        ("mistralai/Mixtral-8x7B-v0.1", 46.70e9),
        ("google/gemma-2-9b", 9.242e9),
        ("deepseek-ai/DeepSeek-V2-Lite", 15.71e9),
        ("deepseek-ai/DeepSeek-V3", 671.0e9),
        ("openai/gpt-oss-20b", 20.91e9),
        ("openai/gpt-oss-120b", 116.83e9),
    ],
)
def test_total_params_are_the_published_ones(name: str, published: float) -> None:
    assert load_model(name).total_params == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "published", "with_embedding", "tolerance"),
    [
        ("Qwen/Qwen3-30B-A3B", 3.3e9, True, 0.02),
        ("mistralai/Mixtral-8x7B-v0.1", 12.88e9, True, 0.005),
        # OpenAI counts the output head and not the input embedding, as `active_params` does.
        ("openai/gpt-oss-120b", 5.13e9, False, 0.005),
        ("openai/gpt-oss-20b", 3.61e9, False, 0.005),
        ("deepseek-ai/DeepSeek-V3", 37e9, False, 0.03),
        ("deepseek-ai/DeepSeek-V2-Lite", 2.4e9, False, 0.03),
    ],
)
def test_active_params_are_the_published_ones(
    name: str, published: float, with_embedding: bool, tolerance: float
) -> None:
    model = load_model(name)
    active = model.active_params + (model.embedding_params if with_embedding else 0)
    assert active == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "kv_bytes", "window_kv_bytes", "window"),
    [
        ("meta-llama/Llama-3.1-8B", 131072, 0, 0),
        ("meta-llama/Llama-3.1-70B", 327680, 0, 0),
        ("meta-llama/Llama-2-7b-hf", 524288, 0, 0),
        ("deepseek-ai/DeepSeek-V3", 70272, 0, 0),
        ("Qwen/Qwen2.5-3B", 36864, 0, 0),
        ("openai/gpt-oss-120b", 36864, 36864, 128),
        ("google/gemma-2-9b", 172032, 172032, 4096),
    ],
)
def test_kv_bytes_per_token(name: str, kv_bytes: int, window_kv_bytes: int, window: int) -> None:
    model = load_model(name)
    assert model.kv_bytes_per_token == kv_bytes
    assert (model.window_kv_bytes_per_token, model.window_tokens) == (window_kv_bytes, window)


def test_attention_work_of_grouped_latent_and_windowed_layers() -> None:
    assert load_model("Llama-3.1-8B").attention_flops_per_pair == 32 * 4 * 32 * 128
    assert load_model("DeepSeek-V3").attention_flops_per_pair == 61 * 2 * 128 * (128 + 64 + 128)
    oss = load_model("gpt-oss-120b")
    assert oss.attention_flops_per_pair == oss.window_attention_flops_per_pair == 18 * 4 * 64 * 64


def test_gpt_oss_weighs_what_its_checkpoint_does() -> None:
    assert load_model("openai/gpt-oss-120b").weight_bytes == pytest.approx(60.8 * 2**30, rel=0.01)
    assert load_model("openai/gpt-oss-20b").weight_bytes == pytest.approx(12.8 * 2**30, rel=0.01)


# Checkpoint sizes in bytes of Llama-3.1-8B with 16-bit embeddings and head: 6.98e9 quantised weights.
@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, 4 + 20 / 32),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8),
        ({"quant_method": "fp8"}, 8),
        ({"quant_method": "fbgemm_fp8"}, 8),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 16384),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}}},
                "ignore": ["lm_head"],
            },
            8,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}},
            },
            4 + 16 / 128,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            8,
        ),
    ],
)
def test_quantised_checkpoints_shrink_the_linear_layers_only(
    quantization: dict[str, Any], bits: float
) -> None:
    config = bundled("meta-llama/Llama-3.1-8B")
    table = config["vocab_size"] * config["hidden_size"]
    model = parse_config(config | {"quantization_config": quantization}, "test", None)
    linear = 32 * (2 * 4096 * (4096 + 1024) + 3 * 4096 * 14336)
    norms = 65 * 4096
    assert model.weight_bytes == pytest.approx(linear * bits / 8 + (2 * table + norms) * 2)
    assert (model.embedding_bits, model.kv_dtype) == (16, DType.BF16)


def test_ignore_lists_keep_attention_and_shared_experts_at_16_bits() -> None:
    base = {
        "quant_method": "compressed-tensors",
        "config_groups": {"g": {"weights": {"num_bits": 8, "type": "int"}}},
    }
    plain = spec(quantization_config=base)
    for entry in ("re:.*self_attn.*", "model.layers.*.self_attn", "self_attn"):
        kept = spec(quantization_config=base | {"ignore": ["lm_head", entry]})
        assert kept.weight_bytes - plain.weight_bytes == pytest.approx(8 * 2 * 1024 * (1024 + 256))
    untouched = spec(quantization_config=base | {"ignore": ["model.layers.0.mlp.gate", "lm_head"]})
    assert untouched.weight_bytes == plain.weight_bytes


def test_override_of_the_weight_format() -> None:
    stored, fp8 = load_model("Llama-3.1-8B"), load_model("Llama-3.1-8B", DType.FP8)
    assert (fp8.weight_dtype, fp8.kv_dtype, fp8.embedding_bits) == (DType.FP8, DType.BF16, 16)
    assert stored.weight_bytes / 2 < fp8.weight_bytes < 0.6 * stored.weight_bytes
    fp32 = load_model("DeepSeek-V3", DType.FP32)
    assert (fp32.dense_bits, fp32.expert_bits, fp32.embedding_bits, fp32.kv_dtype) == (32, 32, 32, DType.FP32)
    assert fp32.kv_bytes_per_token == 2 * 70272


def test_override_with_the_stored_format_changes_only_the_digest() -> None:
    stored, again = load_model("gpt-oss-20b"), load_model("gpt-oss-20b", DType.FP4)
    assert again.weight_bytes == stored.weight_bytes
    assert again.digest != stored.digest


def test_missing_and_float32_dtypes_run_in_bf16() -> None:
    assert spec(torch_dtype=None).weight_dtype == DType.BF16
    assert spec(torch_dtype="float32").weight_dtype == DType.BF16
    assert spec(torch_dtype=None, dtype="float16").kv_dtype == DType.FP16


def test_ids_are_found_without_case_or_organisation() -> None:
    proper = load_model("meta-llama/Llama-3.1-8B")
    for name in ("META-LLAMA/llama-3.1-8b", "Llama-3.1-8B", "llama-3.1-8b"):
        assert load_model(name) == proper


def test_every_bundled_model_and_alias_loads() -> None:
    for name in [*bundled_models(), *ALIASES]:
        model = load_model(name)
        assert model.name == name
        assert 0 < model.active_params <= model.total_params
    assert load_model("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8").weight_dtype == DType.FP8


def test_folder_file_and_id_give_the_same_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(bundled("Qwen/Qwen3-8B")), encoding="utf-8")
    folder, file = load_model(str(tmp_path)), load_model(str(tmp_path / "config.json"))
    assert folder == file
    assert folder.name == str(tmp_path)
    assert folder.digest == load_model("Qwen/Qwen3-8B").digest


def test_modelopt_says_beside_the_config_how_it_quantised(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(bundled("meta-llama/Llama-3.1-8B")), encoding="utf-8")
    beside = tmp_path / "hf_quant_config.json"
    beside.write_text(
        '{"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}', encoding="utf-8"
    )
    assert load_model(str(tmp_path)).weight_bytes == load_model("Llama-3.1-8B", DType.FP8).weight_bytes
    beside.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="hf_quant_config"):
        load_model(str(tmp_path))


def test_the_text_part_of_a_multimodal_config_counts() -> None:
    wrapper = {
        "architectures": ["SomeVisionModel"],
        "torch_dtype": "float16",
        "vision_config": {"hidden_size": 9},
    }
    inner = {key: value for key, value in LLAMA.items() if key not in ("architectures", "torch_dtype")}
    model = parse_config(wrapper | {"text_config": inner}, "test", None)
    assert model.total_params == spec().total_params
    assert (model.architecture, model.kv_dtype) == ("SomeVisionModel", DType.FP16)


def test_expert_layouts_leave_the_right_layers_dense() -> None:
    qwen = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
    sparse = spec(**qwen, decoder_sparse_step=2, mlp_only_layers=[3], shared_expert_intermediate_size=256)
    assert (sparse.moe_layers, sparse.experts, sparse.expert_params) == (3, 4, 3 * 1024 * 512)
    deepseek = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 512}
    assert spec(**deepseek, first_k_dense_replace=1, moe_layer_freq=2, n_shared_experts=1).moe_layers == 3
    assert not spec(num_experts=0, num_experts_per_tok=2).is_moe


@pytest.mark.parametrize(
    ("changes", "windowed"),
    [
        ({"sliding_window": 512}, 8),
        ({"sliding_window": None}, 0),
        ({"sliding_window": 512, "use_sliding_window": False}, 0),
        ({"sliding_window": 512, "model_type": "qwen2"}, 0),
        (
            {
                "sliding_window": 512,
                "model_type": "qwen2",
                "use_sliding_window": True,
                "max_window_layers": 6,
            },
            2,
        ),
        ({"sliding_window": 512, "model_type": "gemma2"}, 4),
        ({"sliding_window": 512, "sliding_window_pattern": 6}, 7),
        ({"sliding_window": 512, "layer_types": ["sliding_attention"] * 3 + ["full_attention"] * 5}, 3),
    ],
)
def test_windowed_layers(changes: dict[str, Any], windowed: int) -> None:
    model = spec(**changes)
    per_layer = 2 * 4 * 64 * 2
    assert model.window_kv_bytes_per_token == windowed * per_layer
    assert model.kv_bytes_per_token == (8 - windowed) * per_layer
    assert model.window_tokens == (512 if windowed else 0)


def test_yarn_stretches_the_context() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
    assert spec(rope_scaling=yarn).max_context_tokens == 32768
    assert load_model("DeepSeek-V3").max_context_tokens == 163840


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": -4096}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ({"vocab_size": True}, "vocab_size"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"intermediate_size": 4096.5}, "intermediate_size"),
        ({"num_key_value_heads": 5}, "num_key_value_heads"),
        ({"num_attention_heads": 24, "num_key_value_heads": 24}, "num_attention_heads"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"torch_dtype": "complex64"}, "torch_dtype"),
        ({"num_local_experts": 8}, "num_experts_per_tok"),
        ({"num_local_experts": 2, "num_experts_per_tok": 3}, "num_experts_per_tok"),
        ({"num_local_experts": -8}, "num_local_experts"),
        ({"moe_num_experts": 8}, "moe_num_experts"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["linear_attention"] * 8}, "layer_types"),
        ({"layer_types": ["sliding_attention"] * 8}, "sliding_window"),
        ({"kv_lora_rank": 512}, "qk_rope_head_dim"),
        ({"rope_scaling": {"type": "yarn", "factor": "4"}}, "rope_scaling"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 5}}, "quantization_config"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "config_groups"),
        ({"quantization_config": {"quant_method": "fp8", "ignored_layers": ["re:("]}}, "quantization_config"),
    ],
)
def test_malformed_fields_are_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        spec(**changes)
    assert f"'{field}'" in caught.value.what
    assert "config.json of 'test'" in caught.value.what
    assert caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"]},
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]},
        {"model_type": "rwkv", "architectures": []},
        {"is_encoder_decoder": True},
        {"linear_num_key_heads": 16},
        {"index_topk": 2048},
        {"global_head_dim": 512},
        {"model_type": "llama4_text"},
    ],
)
def test_other_architectures_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not supported") as caught:
        spec(**changes)
    assert "decoder-only" in caught.value.why


def test_unknown_quantisation_lists_the_known_methods() -> None:
    with pytest.raises(InputError) as caught:
        spec(quantization_config={"quant_method": "quip"})
    assert "awq" in caught.value.why


@pytest.mark.parametrize("content", ["{", "[1]", '"text"', "", "\x00"])
def test_files_that_are_no_config_are_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_model(str(tmp_path))
    assert str(file) in caught.value.what


def test_unknown_names_and_empty_paths(tmp_path: Path) -> None:
    with pytest.raises(UnknownName) as unknown:
        load_model("meta-llama/Llama-3.1-8X")
    assert "meta-llama/Llama-3.1-8B" in unknown.value.nearest
    with pytest.raises(InputError, match=r"no config\.json"):
        load_model(str(tmp_path))
    with pytest.raises(InputError, match="no such file"):
        load_model(str(tmp_path / "missing.json"))


def test_digest_ignores_key_order_and_sees_every_field() -> None:
    backwards = dict(reversed(LLAMA.items()))
    assert parse_config(backwards, "other", None).digest == spec().digest
    assert spec(rope_theta=1e6).digest != spec().digest


formats = st.sampled_from([None, *DType])


@given(layers=st.integers(1, 200), dtype=formats, base=st.sampled_from([LLAMA, MOE]))
def test_more_layers_never_take_fewer_bytes(layers: int, dtype: DType | None, base: dict[str, Any]) -> None:
    small = parse_config(base | {"num_hidden_layers": layers}, "test", dtype)
    large = parse_config(base | {"num_hidden_layers": layers + 1}, "test", dtype)
    assert large.weight_bytes > small.weight_bytes
    assert large.kv_bytes(1000) > small.kv_bytes(1000)
    assert large.flops_per_token > small.flops_per_token


@given(experts=st.integers(1, 256), tokens=st.floats(0, 1e5), more=st.floats(0, 1e5), data=st.data())
def test_step_weight_bytes_grow_with_tokens_up_to_all(
    experts: int, tokens: float, more: float, data: st.DataObject
) -> None:
    picked = data.draw(st.integers(1, experts))
    config = MOE | {"num_local_experts": experts, "num_experts_per_tok": picked}
    model = parse_config(config, "test", data.draw(formats))
    assert model.step_weight_bytes(tokens) <= model.step_weight_bytes(tokens + more) * (1 + 1e-12)
    assert model.step_weight_bytes(tokens + more) <= model.weight_bytes


values = st.none() | st.integers() | st.booleans() | st.sampled_from(["", "32", "llama"])


@given(st.dictionaries(st.sampled_from(sorted([*MOE, "num_experts", "n_routed_experts"])), values))
def test_a_damaged_config_is_an_input_error_or_a_model(damage: dict[str, Any]) -> None:
    try:
        model = parse_config(MOE | damage, "test", None)
    except InputError:
        return
    assert model.weight_bytes > 0
