"""What a planner needs to know of a language model."""

from dataclasses import dataclass, replace

from hgpu.core.experts import ExpertCache
from hgpu.core.gpu import DType


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Sizes and work of a decoder-only transformer, worked out from its `config.json`.

    Parameters are split by how an engine step touches them:

    - `dense_params`: read and multiplied for every token of every step (attention, dense MLPs,
      shared experts, router, norms, output head);
    - `embedding_params`: the input embedding table, stored but only looked up; 0 where it is
      tied to the output head, which `dense_params` then holds;
    - `expert_params`: one routed expert of one layer; `experts` of them in each of `moe_layers`
      layers, `experts_per_token` used by a token.

    `kv_bytes_per_token` covers the layers that attend to the whole context;
    `window_kv_bytes_per_token` those that see only the last `window_tokens` tokens.
    `attention_flops_per_pair` is the work of one (query, key) pair summed over all layers.
    `weight_bits` is the average storage of a parameter in `dense_params` and experts with the
    scales of a quantised format included; `embedding_bits` that of the embedding table.
    """

    name: str
    architecture: str
    layers: int
    hidden_size: int
    vocab_size: int
    max_context_tokens: int
    dense_params: int
    embedding_params: int
    expert_params: int
    experts: int
    experts_per_token: int
    moe_layers: int
    weight_dtype: DType
    dense_bits: float
    expert_bits: float
    embedding_bits: float
    kv_dtype: DType
    kv_bytes_per_token: int
    window_kv_bytes_per_token: int
    window_tokens: int
    attention_flops_per_pair: int
    window_attention_flops_per_pair: int
    attention_heads: int
    kv_heads: int
    digest: str

    def splits_over(self, ranks: int) -> bool:
        """Tell whether so many ranks of tensor parallelism can share the heads, as vLLM asks.

        Query heads are divided; KV heads too, or each is kept by as many ranks.
        """
        return not (self.attention_heads % ranks or (self.kv_heads % ranks and ranks % self.kv_heads))

    @property
    def is_moe(self) -> bool:
        """True where tokens are routed to some of many experts."""
        return self.experts > 0

    @property
    def total_params(self) -> int:
        """All stored parameters."""
        return self.dense_params + self.embedding_params + self.moe_layers * self.experts * self.expert_params

    @property
    def active_params(self) -> int:
        """Parameters multiplied for one token (the embedding look-up not counted)."""
        return self.dense_params + self.moe_layers * self.experts_per_token * self.expert_params

    @property
    def expert_bytes(self) -> float:
        """Bytes of one routed expert in one layer."""
        return self.expert_params * self.expert_bits / 8

    @property
    def weight_bytes(self) -> float:
        """Bytes of all stored weights."""
        return (
            self.dense_params * self.dense_bits / 8
            + self.embedding_params * self.embedding_bits / 8
            + self.all_expert_bytes
        )

    @property
    def all_expert_bytes(self) -> float:
        """Bytes of all routed experts of all layers: what host memory holds in mode `offload`."""
        return self.moe_layers * self.experts * self.expert_bytes

    def resident_bytes(self, cache: ExpertCache | None) -> float:
        """Return the weight bytes on the devices: all, or in mode `offload` those of experts with a slot.

        The wide buffer counts with them, unless every expert has a slot; copies go straight into slots, so
        that nothing else is needed to stage them.
        """
        if cache is None:
            return self.weight_bytes
        slots = sum(cache.slots_of(self.experts, self.experts_per_token, self.moe_layers))
        if cache.wide and slots < self.moe_layers * self.experts:
            slots += self.experts
        return self.weight_bytes - self.all_expert_bytes + slots * self.expert_bytes

    @property
    def flops_per_token(self) -> float:
        """Work of the matrix multiplications for one token, attention scores not counted."""
        return 2.0 * self.active_params

    def cached_in(self, dtype: DType | None) -> "ModelSpec":
        """Return the model with its KV cache in another format; None leaves it as it is.

        Bytes scale with the bits of an element; an 8-bit cache's scales are a few numbers a layer and
        not counted. Name and digest stay: it is the same checkpoint.
        """
        if dtype in (None, self.kv_dtype):
            return self
        return replace(
            self,
            kv_dtype=dtype,
            kv_bytes_per_token=self.kv_bytes_per_token * dtype.bits // self.kv_dtype.bits,
            window_kv_bytes_per_token=self.window_kv_bytes_per_token * dtype.bits // self.kv_dtype.bits,
        )

    def step_weight_bytes(self, tokens: float) -> float:
        """Return the weight bytes that a step over `tokens` tokens reads.

        A token picks `experts_per_token` of `experts`; with independent uniform picks a step
        touches E·(1 − (1 − k/E)^tokens) experts a layer. Real routing is more skewed and
        touches fewer, so this is an upper bound.
        """
        dense = self.dense_params * self.dense_bits / 8
        if not self.is_moe:
            return dense
        idle: float = (1.0 - self.experts_per_token / self.experts) ** tokens
        return dense + self.moe_layers * self.experts * (1.0 - idle) * self.expert_bytes

    def kv_bytes(self, context_tokens: float) -> float:
        """Return the KV-cache bytes of one sequence with `context_tokens` tokens."""
        windowed = min(context_tokens, self.window_tokens)
        return context_tokens * self.kv_bytes_per_token + windowed * self.window_kv_bytes_per_token
