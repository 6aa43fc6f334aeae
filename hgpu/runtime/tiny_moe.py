"""A small mixture of experts with random weights and a real tokenizer, made in a second, without torch.

Its architecture is Qwen3-MoE's, which vLLM runs with its fused MoE layer on CPUs and GPUs alike. The weights
are large enough for attention and routing to decide the tokens; those of `load_format` "dummy" are not.
Its routing is as random as its weights: `benchmarks/experts/train.py` trains one whose routing isn't.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hgpu.runtime.tiny_model import VOCABULARY, write_tokenizer

HEAD_SIZE = 32
WEIGHT_STD = 0.06
GATE_STD = 0.2  # decides between experts by more than bfloat16 rounds


def make_tiny_moe(
    folder: Path,
    experts: int = 32,
    per_token: int = 4,
    layers: int = 4,
    hidden_size: int = 128,
    expert_size: int = 64,
    max_context_tokens: int = 2048,
    seed: int = 0,
) -> Path:
    """Write `config.json`, `model.safetensors` and a tokenizer into `folder`, and return it.

    `expert_size` is the inner width of one expert. Both widths are multiples of 32: vLLM on a CPU wants that.
    The same arguments give the same files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = moe_config(experts, per_token, layers, hidden_size, expert_size, max_context_tokens)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(folder)
    hf: Any = importlib.import_module("safetensors.numpy")  # comes with vLLM; has no part in a plain install
    random = np.random.default_rng(seed)
    weights = {name: _drawn(random, name, shape) for name, shape in _shapes(config)}
    hf.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def moe_config(
    experts: int, per_token: int, layers: int, hidden_size: int, expert_size: int, max_context_tokens: int
) -> dict[str, Any]:
    """Return the Hugging Face configuration of a small Qwen3-MoE in which every layer has experts."""
    heads = hidden_size // HEAD_SIZE
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": hidden_size,
        "intermediate_size": expert_size * per_token,
        "moe_intermediate_size": expert_size,
        "num_experts": experts,
        "num_experts_per_tok": per_token,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2 if heads % 2 == 0 else 1,
        "head_dim": HEAD_SIZE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": max_context_tokens,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "rope_theta": 10000.0,
    }


def _shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = config["hidden_size"], config["moe_intermediate_size"]
    queries, keys = (config[name] * HEAD_SIZE for name in ("num_attention_heads", "num_key_value_heads"))
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    yield "lm_head.weight", (config["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        yield f"{layer}.self_attn.q_proj.weight", (queries, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, queries)
        yield f"{layer}.self_attn.q_norm.weight", (HEAD_SIZE,)
        yield f"{layer}.self_attn.k_norm.weight", (HEAD_SIZE,)
        yield f"{layer}.mlp.gate.weight", (config["num_experts"], hidden)
        for expert in range(config["num_experts"]):
            yield f"{layer}.mlp.experts.{expert}.gate_proj.weight", (inner, hidden)
            yield f"{layer}.mlp.experts.{expert}.up_proj.weight", (inner, hidden)
            yield f"{layer}.mlp.experts.{expert}.down_proj.weight", (hidden, inner)


def _drawn(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    std = GATE_STD if name.endswith("mlp.gate.weight") else WEIGHT_STD
    return random.normal(0.0, std, shape).astype(np.float32)
