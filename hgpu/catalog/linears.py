"""The linear modules of a decoder layer, by the names that transformers gives them.

Known for the families whose layers are q, k, v, o and a gated MLP. Expert layers list their attention
only: no adapter is put into routed experts here.
"""

from collections.abc import Sequence

from hgpu.catalog.config_fields import Config, count, optional_count
from hgpu.catalog.model_config import config_text_part
from hgpu.catalog.transformer import experts, family
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.training import Linear

GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma3")
ROUTED = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss")


def linears_of(config: Config, name: str) -> tuple[Linear, ...]:
    """Return the modules of all layers; raises InputError for a family whose modules aren't known."""
    language = config_text_part(config, name)
    kind = family(language, name)
    if kind not in GATED + ROUTED:
        raise InputError(
            f"the linear modules of '{name}' aren't known",
            f"its family is '{kind}'; known are {', '.join(GATED + ROUTED)}",
            "choose a model of one of these families",
        )
    layers = count(language, "num_hidden_layers", name)
    hidden, heads = count(language, "hidden_size", name), count(language, "num_attention_heads", name)
    head_dim = optional_count(language, "head_dim", name, default=hidden // heads)
    queries = heads * head_dim
    keys = optional_count(language, "num_key_value_heads", name, default=heads) * head_dim
    attention = (
        Linear("q_proj", hidden, queries, layers),
        Linear("k_proj", hidden, keys, layers),
        Linear("v_proj", hidden, keys, layers),
        Linear("o_proj", queries, hidden, layers),
    )
    if experts(language, name, layers) is not None:
        return attention
    inner = count(language, "intermediate_size", name)
    return (
        *attention,
        Linear("gate_proj", hidden, inner, layers),
        Linear("up_proj", hidden, inner, layers),
        Linear("down_proj", inner, hidden, layers),
    )


def targeted(linears: Sequence[Linear], targets: Sequence[str]) -> tuple[Linear, ...]:
    """Return the modules of these names; raises UnknownName for one that the model doesn't have."""
    names = [linear.name for linear in linears]
    for target in targets:
        if target not in names:
            raise UnknownName("target module", target, names)
    return tuple(linear for linear in linears if linear.name in targets)
