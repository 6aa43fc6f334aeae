"""Random weights for a small Llama that are large enough for what it attends to to decide its tokens.

Those of vLLM's `load_format` "dummy" are within ±0.001, so that attention has no say in what comes next.
"""

import json
from pathlib import Path

import numpy as np

STD = 0.06


def write_weights(folder: Path, seed: int = 0) -> None:
    """Write `model.safetensors` beside the `config.json` in `folder`."""
    from safetensors.numpy import save_file

    config = json.loads((folder / "config.json").read_text())
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    random = np.random.default_rng(seed)

    def drawn(*shape: int) -> np.ndarray:
        return random.normal(0.0, STD, shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": drawn(config["vocab_size"], hidden)}
    weights["model.norm.weight"] = np.ones(hidden, np.float32)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        weights |= {f"{layer}.{name}.weight": drawn(*shape) for name, shape in shapes.items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{layer}.{name}.weight"] = np.ones(hidden, np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
