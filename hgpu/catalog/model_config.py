"""From a Hugging Face `config.json` to the sizes and the work of a model.

The counts are those of the language model that an engine runs: no vision tower, no
multi-token-prediction layers.
"""

import hashlib
import json
from typing import Any

from hgpu.catalog.config_fields import Config, count, field_error, flag, items, optional_count, section, text
from hgpu.catalog.transformer import (
    FOUR_NORMS,
    Attention,
    Experts,
    attention,
    experts,
    family,
    mlp_matrices,
    windowed_layers,
)
from hgpu.catalog.weight_format import WeightFormat, weight_format
from hgpu.core.errors import InputError
from hgpu.core.gpu import DType
from hgpu.core.model import ModelSpec

# Families that would pass for a plain decoder by their fields, and why they aren't one.
ENCODERS = ("t5", "mt5", "umt5", "bart", "mbart", "whisper", "bert", "roberta", "xlm-roberta", "modernbert")
RECURRENT = ("mamba", "rwkv", "recurrent", "xlstm", "jamba", "zamba", "bamba", "hybrid", "lfm2", "nemotron_h")
UNKNOWN_LAYOUT = ("llama4", "arctic")
MARKERS = {
    "state_size": "it keeps a recurrent state instead of a KV cache",
    "ssm_state_size": "it keeps a recurrent state instead of a KV cache",
    "mamba_d_state": "it keeps a recurrent state instead of a KV cache",
    "linear_num_key_heads": "some of its layers use linear attention",
    "global_head_dim": "its layers differ in the size of their heads",
    "num_kv_shared_layers": "some of its layers share one KV cache",
    "index_topk": "its sparse attention caches an index beside the KV cache",
}
INHERITED = ("architectures", "quantization_config", "tie_word_embeddings", "torch_dtype", "dtype")
TIED_BY_DEFAULT = ("gemma", "cohere")
MOST_LAYERS = 10_000


def parse_config(config: dict[str, Any], name: str, dtype: DType | None) -> ModelSpec:
    """Work out a `ModelSpec` from the contents of a `config.json`.

    `dtype` replaces the stored weight format: 16 and 32 bits set everything including the KV
    cache; 8 and 4 bits set the linear layers, while embeddings, head, norms and router keep the
    activation format. Without a `torch_dtype`, bf16 is taken, as engines do. Of a multimodal
    config only the text part is counted. Attention work is that of prefill: 4·heads·head_dim a
    (query, key) pair and layer, or 2·heads·(qk_nope + qk_rope + v) under multi-head latent attention.

    Raises `InputError` for missing or nonsensical fields, and for architectures that aren't
    decoder-only transformers.
    """
    language = config_text_part(config, name)
    _refuse_unsupported(language, name)
    layers = _layers(language, name)
    window_layers = windowed_layers(language, name, layers)
    block, routed = attention(language, name), experts(language, name, layers)
    stored = weight_format(language, name, layers, dtype)
    dense_params, dense_bits = _dense_part(language, name, layers, block, routed, stored)
    kv_bytes = block.kv_elements * stored.activation.bits // 8
    return ModelSpec(
        name=name,
        architecture=_architecture(language, name),
        layers=layers,
        hidden_size=count(language, "hidden_size", name),
        vocab_size=count(language, "vocab_size", name),
        max_context_tokens=_max_context_tokens(language, name),
        dense_params=dense_params,
        embedding_params=0 if _tied(language, name) else _embedding_params(language, name),
        expert_params=routed.matrices + routed.plain if routed else 0,
        experts=routed.experts if routed else 0,
        experts_per_token=routed.per_token if routed else 0,
        moe_layers=routed.moe_layers if routed else 0,
        weight_dtype=stored.dtype,
        dense_bits=dense_bits,
        expert_bits=_expert_bits(routed, stored),
        embedding_bits=float(stored.activation.bits),
        kv_dtype=stored.activation,
        kv_bytes_per_token=(layers - window_layers) * kv_bytes,
        window_kv_bytes_per_token=window_layers * kv_bytes,
        window_tokens=count(language, "sliding_window", name) if window_layers else 0,
        attention_flops_per_pair=(layers - window_layers) * block.flops_per_pair,
        window_attention_flops_per_pair=window_layers * block.flops_per_pair,
        attention_heads=block.heads,
        kv_heads=block.kv_heads,
        digest=config_digest(config, dtype),
    )


def config_digest(config: dict[str, Any], dtype: DType | None) -> str:
    """Return the sha256 of the canonical JSON of the config and the dtype override."""
    content = {"config": config, "dtype": None if dtype is None else dtype.value}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def config_text_part(config: Config, name: str) -> Config:
    """Return the language model's fields of a config, with those that the wrapper holds for it."""
    for key in ("text_config", "llm_config", "language_config"):
        part = section(config, key, name)
        if part:
            inherited = {field: config[field] for field in INHERITED if config.get(field) is not None}
            return {**inherited, **{field: value for field, value in part.items() if value is not None}}
    return config


def _refuse_unsupported(config: Config, name: str) -> None:
    reason = _reason_against(config, name)
    if reason:
        raise InputError(
            f"config.json of '{name}': architecture '{_architecture(config, name)}' is not supported",
            f"{reason}; hgpu plans for decoder-only transformers with a KV cache",
            "use a model like Llama, Mistral, Mixtral, Qwen, Gemma, DeepSeek or gpt-oss",
        )


def _reason_against(config: Config, name: str) -> str:
    kinds = (family(config, name), _architecture(config, name).lower())
    if flag(config, "is_encoder_decoder", name, default=False) or any(k.startswith(ENCODERS) for k in kinds):
        return "it is an encoder or an encoder-decoder"
    if any(word in kind for kind in kinds for word in RECURRENT):
        return MARKERS["state_size"]
    if kinds[0].startswith(UNKNOWN_LAYOUT):
        return "the layout of its layers is not known to hgpu"
    return next((why for key, why in MARKERS.items() if config.get(key)), "")


def _architecture(config: Config, name: str) -> str:
    listed = items(config, "architectures", name, str)
    return listed[0] if listed else family(config, name)


def _layers(config: Config, name: str) -> int:
    layers = count(config, "num_hidden_layers", name)
    if layers > MOST_LAYERS:
        raise field_error(name, "num_hidden_layers", f"no model has {layers} layers")
    return layers


def _tied(config: Config, name: str) -> bool:
    default = family(config, name).startswith(TIED_BY_DEFAULT)
    return flag(config, "tie_word_embeddings", name, default=default)


def _embedding_params(config: Config, name: str) -> int:
    return count(config, "vocab_size", name) * count(config, "hidden_size", name)


def _dense_part(
    config: Config, name: str, layers: int, block: Attention, routed: Experts | None, stored: WeightFormat
) -> tuple[int, float]:
    """Return the parameters that every token passes through, and their average bits."""
    hidden = count(config, "hidden_size", name)
    moe_layers = routed.moe_layers if routed else 0
    dense_layers = layers - moe_layers
    mlp = mlp_matrices(config, name, count(config, "intermediate_size", name)) if dense_layers else 0
    norms = (4 if family(config, name) in FOUR_NORMS else 2) * hidden
    plain = layers * (norms + block.plain) + hidden + _embedding_params(config, name)
    plain += moe_layers * routed.router if routed else 0
    shared = moe_layers * routed.shared if routed else 0
    parts = (
        (layers * block.matrices, stored.attention_bits),
        (dense_layers * mlp, stored.mlp_bits),
        (shared, stored.shared_expert_bits),
        (plain, float(stored.activation.bits)),
    )
    return sum(params for params, _ in parts), _average_bits(parts)


def _expert_bits(routed: Experts | None, stored: WeightFormat) -> float:
    if routed is None:
        return stored.expert_bits
    plain = (routed.plain, float(stored.activation.bits))
    return _average_bits(((routed.matrices, stored.expert_bits), plain))


def _average_bits(parts: tuple[tuple[int, float], ...]) -> float:
    return sum(params * bits for params, bits in parts) / sum(params for params, _ in parts)


def _max_context_tokens(config: Config, name: str) -> int:
    """Return the longest context; YaRN stretches the original one, which some configs leave unsaid."""
    stated = count(config, "max_position_embeddings", name)
    rope = section(config, "rope_scaling", name) or section(config, "rope_parameters", name)
    kind = text(rope, "rope_type", name) or text(rope, "type", name)
    if kind != "yarn":
        return stated
    factor = rope.get("factor")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor < 1e6:
        raise field_error(name, "rope_scaling", f"its factor must be a number of at least 1, not {factor!r}")
    original = optional_count(rope, "original_max_position_embeddings", name, default=stated)
    return max(stated, int(original * factor))
