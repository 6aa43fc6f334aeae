"""A model made small, for what can be measured on it and extrapolated: few layers, narrow heads.

Numbers of heads stay; the width of a head shrinks by a factor, and the hidden size, the MLP and the
vocabulary by the same, so that tensors keep their proportions.
"""

from dataclasses import dataclass
from typing import Any

from hgpu.catalog.config_fields import count, optional_count
from hgpu.catalog.model_config import config_text_part
from hgpu.core.errors import InputError

NARROWEST = 8  # numbers in a head; rotary positions need an even one


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A config and by which factor it was shrunk."""

    config: dict[str, Any]
    factor: float
    layers: int
    vocab: int


def shrunk(config: dict[str, Any], name: str, head_dim: int, layers: int, vocab_share: float) -> Shrunk:
    """Return a config with heads of `head_dim`, so many layers, and a part of the shrunk vocabulary.

    Raises InputError for a model with routed experts, whose activations depend on the routing.
    """
    language = dict(config_text_part(config, name))
    if any(language.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise InputError(
            f"the activations of '{name}' can't be measured on a small copy",
            "it routes tokens to experts, and what is saved depends on the routing",
            "plan with estimated activations",
        )
    hidden, heads = count(language, "hidden_size", name), count(language, "num_attention_heads", name)
    wide = optional_count(language, "head_dim", name, default=hidden // heads)
    factor = head_dim / wide
    vocab = round(count(language, "vocab_size", name) * factor * vocab_share)
    small = {
        "hidden_size": round(hidden * factor),
        "intermediate_size": round(count(language, "intermediate_size", name) * factor),
        "head_dim": head_dim,
        "num_hidden_layers": layers,
        "vocab_size": vocab,
    }
    kinds = language.get("layer_types")
    if kinds:
        small["layer_types"] = (kinds * layers)[:layers]
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    left_out = ("torch_dtype", "dtype", "quantization_config", "architectures")
    kept = {key: value for key, value in language.items() if key not in left_out}
    return Shrunk({**kept, **small, **tokens}, factor, layers, vocab)
