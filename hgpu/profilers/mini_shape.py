"""The shape of the mini-engine's model, and the work of its operators."""

from dataclasses import dataclass
from itertools import starmap

from hgpu.core.errors import InputError
from hgpu.core.partition import PREFILL, Load, OperatorClass, Work

_GATHER = 3  # paged KV is read, written as one piece and read by attention
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Size:
    """What a step holds: a prompt's `tokens` after `context`, or that many sequences with `context` each."""

    tokens: int
    context: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.context < 0:
            raise InputError(f"{self} is no step", "it has a token or more, and a context of 0 or more")


@dataclass(frozen=True, slots=True)
class MiniShape:
    """Layers shaped as Llama-3.1-8B's, fewer of them: a rate is the same from a few layers as from all."""

    layers: int = 4
    hidden: int = 4096
    intermediate: int = 14_336
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    block_tokens: int = 16
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.dtype not in _BYTES or self.heads % self.kv_heads:
            raise InputError(
                f"a mini-engine can't be made of {self}",
                f"its format is one of {', '.join(_BYTES)}, and KV heads divide the heads",
            )

    @property
    def layer_params(self) -> int:
        """Parameters of one layer's matrix multiplications."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_dim * self.hidden
        return attention + 3 * self.hidden * self.intermediate

    @property
    def kv_bytes_per_token(self) -> int:
        """KV-cache bytes of one token over all layers."""
        return 2 * self.kv_heads * self.head_dim * _BYTES[self.dtype] * self.layers

    def work(self, kind: OperatorClass, size: Size) -> Work:
        """Return the FLOPs and bytes of one step's operators of a class, over all layers."""
        if kind in (OperatorClass.PREFILL_DENSE, OperatorClass.DECODE_DENSE):
            params = self.layers * self.layer_params
            return Work(2.0 * size.tokens * params, float(params * _BYTES[self.dtype]))
        if kind in PREFILL:
            pairs = size.tokens * size.context + size.tokens * (size.tokens + 1) / 2
            kv_tokens = size.tokens + size.context
        else:
            pairs = kv_tokens = size.tokens * (size.context + 1)
        flops = 4.0 * self.heads * self.head_dim * self.layers * pairs
        return Work(flops, float(_GATHER * kv_tokens * self.kv_bytes_per_token))

    def load(self, prefill: Size, decode: Size) -> Load:
        """Return the load of a step of each phase."""
        sizes = [prefill if kind in PREFILL else decode for kind in OperatorClass]
        return Load(*starmap(self.work, zip(OperatorClass, sizes, strict=True)))
