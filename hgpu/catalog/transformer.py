"""Parameter counts of the blocks of a decoder layer: attention families and expert layouts.

A family is known by a field that only it has, and is one entry in `ATTENTION` or `EXPERTS`.
Matrices are counted apart from the plain parameters (norms, biases, router), which quantised
formats leave at 16 bits.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hgpu.catalog.config_fields import Config, count, field_error, flag, items, optional_count, text

FULL, SLIDING = "full_attention", "sliding_attention"

# Model families whose MLP has two matrices (up, down) instead of three (gate, up, down).
PLAIN_MLP = frozenset({"gpt_neox", "starcoder2", "phi", "nemotron", "persimmon", "arcee"})
QK_NORM = frozenset({"qwen3", "qwen3_moe", "gemma3", "gemma3_text"})
QKV_BIAS = frozenset({"qwen2", "qwen2_moe"})
FOUR_NORMS = frozenset({"gemma2", "gemma3", "gemma3_text"})


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of one layer; `kv_elements` are the numbers cached for one token."""

    matrices: int
    plain: int
    kv_elements: int
    flops_per_pair: int
    heads: int
    kv_heads: int


@dataclass(frozen=True, slots=True)
class Experts:
    """Routed experts: `shared` are matrices that every token of a MoE layer passes through."""

    moe_layers: int
    experts: int
    per_token: int
    matrices: int
    plain: int
    shared: int
    router: int


def family(config: Config, name: str) -> str:
    """Return the model family, such as `llama` or `qwen3_moe`."""
    return text(config, "model_type", name).lower()


def mlp_matrices(config: Config, name: str, width: int) -> int:
    """Return the weights of one MLP with `width` inner units."""
    matrices = 2 if family(config, name) in PLAIN_MLP else 3
    return matrices * count(config, "hidden_size", name) * width


def attention(config: Config, name: str) -> Attention:
    """Return the attention of one layer, of the family that the config's fields show."""
    for key, build in ATTENTION.items():
        if config.get(key) is not None:
            return build(config, name)
    return _grouped_query(config, name)


def _grouped_query(config: Config, name: str) -> Attention:
    """Multi-head, grouped-query and multi-query attention: QKᵀ and PV cost 4·heads·head_dim a pair."""
    hidden, heads = count(config, "hidden_size", name), count(config, "num_attention_heads", name)
    kv_heads = optional_count(config, "num_key_value_heads", name, default=heads)
    if heads % kv_heads:
        raise field_error(name, "num_key_value_heads", f"{heads} query heads can't share {kv_heads} KV heads")
    if config.get("head_dim") is None and hidden % heads:
        raise field_error(name, "num_attention_heads", f"hidden_size {hidden} isn't a multiple of {heads}")
    head_dim = optional_count(config, "head_dim", name, default=hidden // heads)
    queries, keys = heads * head_dim, kv_heads * head_dim
    return Attention(
        matrices=2 * hidden * (queries + keys),
        plain=_attention_plain(config, name, queries, keys, head_dim),
        kv_elements=2 * keys,
        flops_per_pair=4 * queries,
        heads=heads,
        kv_heads=kv_heads,
    )


def _attention_plain(config: Config, name: str, queries: int, keys: int, head_dim: int) -> int:
    """Count biases, the norms of queries and keys, and the sinks of gpt-oss."""
    kind = family(config, name)
    biases = 0
    if kind in QKV_BIAS and flag(config, "qkv_bias", name, default=True):
        biases = queries + 2 * keys
    elif flag(config, "attention_bias", name, default=False):
        biases = queries + 2 * keys + count(config, "hidden_size", name)
    norms = 2 * head_dim if kind in QK_NORM else 0
    sinks = count(config, "num_attention_heads", name) if kind == "gpt_oss" else 0
    return biases + norms + sinks


def _latent(config: Config, name: str) -> Attention:
    """Multi-head latent attention (DeepSeek-V2, section 2.1).

    What is cached is the compressed latent and the rotary key, once for all heads. The work of a
    pair is that of the prefill form; the absorbed form of decode does more work on fewer bytes.
    """
    hidden, heads = count(config, "hidden_size", name), count(config, "num_attention_heads", name)
    latent, rope = count(config, "kv_lora_rank", name), count(config, "qk_rope_head_dim", name)
    nope, values = count(config, "qk_nope_head_dim", name), count(config, "v_head_dim", name)
    query_rank = optional_count(config, "q_lora_rank", name, default=0)
    queries = heads * (nope + rope)
    query_matrices = query_rank * (hidden + queries) if query_rank else hidden * queries
    kv_matrices = hidden * (latent + rope) + latent * heads * (nope + values)
    return Attention(
        matrices=query_matrices + kv_matrices + heads * values * hidden,
        plain=query_rank + latent,
        kv_elements=latent + rope,
        flops_per_pair=2 * heads * (nope + rope + values),
        heads=heads,
        kv_heads=1,
    )


ATTENTION: dict[str, Callable[[Config, str], Attention]] = {"kv_lora_rank": _latent}


def experts(config: Config, name: str, layers: int) -> Experts | None:
    """Return the routed experts, or None for a dense model."""
    for key, build in EXPERTS.items():
        if optional_count(config, key, name, default=0, minimum=0):
            return build(config, name, layers)
    unknown = sorted(key for key in config if "num_experts" in key and config[key])
    if set(unknown) - {"num_experts_per_tok"}:
        why = f"an expert layout is known by one of {', '.join(EXPERTS)}"
        raise field_error(name, unknown[0], why, "use a model of a supported architecture")
    return None


def _mixtral(config: Config, name: str, layers: int) -> Experts:
    """Mixtral and gpt-oss: every layer routes; gpt-oss has biases in experts and router."""
    hidden, number = count(config, "hidden_size", name), count(config, "num_local_experts", name)
    width = optional_count(config, "moe_intermediate_size", name, count(config, "intermediate_size", name))
    biased = family(config, name) == "gpt_oss"
    return Experts(
        moe_layers=layers,
        experts=number,
        per_token=_experts_per_token(config, name, number),
        matrices=mlp_matrices(config, name, width),
        plain=2 * width + hidden if biased else 0,
        shared=0,
        router=(hidden + int(biased)) * number,
    )


def _qwen(config: Config, name: str, layers: int) -> Experts:
    """Qwen2-MoE and Qwen3-MoE: a shared expert behind a gate, and layers that stay dense."""
    hidden, number = count(config, "hidden_size", name), count(config, "num_experts", name)
    width = optional_count(config, "moe_intermediate_size", name, count(config, "intermediate_size", name))
    shared = optional_count(config, "shared_expert_intermediate_size", name, default=0, minimum=0)
    step = optional_count(config, "decoder_sparse_step", name, default=1)
    dense = set(items(config, "mlp_only_layers", name, int))
    return Experts(
        moe_layers=sum(1 for i in range(layers) if i not in dense and (i + 1) % step == 0),
        experts=number,
        per_token=_experts_per_token(config, name, number),
        matrices=mlp_matrices(config, name, width),
        plain=0,
        shared=mlp_matrices(config, name, shared),
        router=hidden * (number + (1 if shared else 0)),
    )


def _deepseek(config: Config, name: str, layers: int) -> Experts:
    """DeepSeek V2 and V3: the first layers are dense, shared experts are as wide as routed ones."""
    hidden, number = count(config, "hidden_size", name), count(config, "n_routed_experts", name)
    expert = mlp_matrices(config, name, count(config, "moe_intermediate_size", name))
    first = optional_count(config, "first_k_dense_replace", name, default=0, minimum=0)
    frequency = optional_count(config, "moe_layer_freq", name, default=1)
    return Experts(
        moe_layers=sum(1 for i in range(first, layers) if i % frequency == 0),
        experts=number,
        per_token=_experts_per_token(config, name, number),
        matrices=expert,
        plain=0,
        shared=expert * optional_count(config, "n_shared_experts", name, default=0, minimum=0),
        router=hidden * number,
    )


def _experts_per_token(config: Config, name: str, number: int) -> int:
    key = "num_experts_per_tok" if config.get("experts_per_token") is None else "experts_per_token"
    picked = count(config, key, name)
    if picked > number:
        raise field_error(name, key, f"a token can't use {picked} of {number} experts")
    return picked


EXPERTS: dict[str, Callable[[Config, str, int], Experts]] = {
    "n_routed_experts": _deepseek,
    "num_local_experts": _mixtral,
    "num_experts": _qwen,
}


def windowed_layers(config: Config, name: str, layers: int) -> int:
    """Return how many layers see only the last `sliding_window` tokens.

    `layer_types` says so outright; older configs mean every layer (Mistral), every second one
    (Gemma 2), all but each n-th (`sliding_window_pattern`) or those past `max_window_layers` (Qwen).
    """
    kinds = items(config, "layer_types", name, str)
    if kinds:
        return _listed_windows(kinds, config, name, layers)
    kind = family(config, name)
    window = optional_count(config, "sliding_window", name, default=0)
    if not window or not flag(config, "use_sliding_window", name, default=not kind.startswith("qwen")):
        return 0
    default_pattern = 2 if kind == "gemma2" else 0
    pattern = optional_count(config, "sliding_window_pattern", name, default=default_pattern)
    if pattern:
        return layers - layers // pattern
    if kind.startswith("qwen"):
        full = optional_count(config, "max_window_layers", name, default=layers, minimum=0)
        return layers - min(layers, full)
    return layers


def _listed_windows(kinds: list[str], config: Config, name: str, layers: int) -> int:
    unknown = sorted(set(kinds) - {FULL, SLIDING})
    if unknown:
        raise field_error(name, "layer_types", f"layers of kind '{unknown[0]}' are not supported")
    if len(kinds) != layers:
        raise field_error(name, "layer_types", f"it lists {len(kinds)} of {layers} layers")
    if SLIDING in kinds:
        count(config, "sliding_window", name)
    return kinds.count(SLIDING)
