"""A small engine that computes what a Llama computes, to time its operators: no tokens, no sampling.

Layers have Llama's matrices (RMS norms, grouped-query attention, a gated MLP; no rotary positions, which
cost next to nothing), a paged KV cache whose blocks lie in no order, and prefill that stops after every
layer, so that another phase may be started between two. It is a measuring instrument and serves nobody: the
rates are of torch's kernels, and paged KV is gathered into one piece before attention reads it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from hgpu.core.errors import InputError
from hgpu.core.partition import OperatorClass
from hgpu.profilers.mini_shape import MiniShape, Size

Tensor = Any
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class MiniEngine:
    """Weights and a KV cache of `kv_tokens` on one torch device."""

    def __init__(self, shape: MiniShape, device: str, kv_tokens: int, seed: int = 0) -> None:
        import torch

        self.shape, self.device, self.dtype = shape, device, getattr(torch, shape.dtype)
        self._random = torch.Generator(device=device).manual_seed(seed)
        heads = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        self.layers = [
            (
                self._matrix(shape.hidden, heads),
                self._matrix(shape.heads * shape.head_dim, shape.hidden),
                self._matrix(shape.hidden, 2 * shape.intermediate),
                self._matrix(shape.intermediate, shape.hidden),
            )
            for _ in range(shape.layers)
        ]
        blocks = -(-kv_tokens // shape.block_tokens)
        pool = (shape.layers, 2, blocks * shape.block_tokens, shape.kv_heads, shape.head_dim)
        self.kv = torch.zeros(pool, device=device, dtype=self.dtype)
        self._free = torch.randperm(blocks, device=device, generator=self._random)

    def hidden(self, tokens: int) -> Tensor:
        """Return random hidden states of so many tokens."""
        return self._matrix(tokens, self.shape.hidden) * self.shape.hidden**0.5

    def slots(self, seqs: int, tokens: int, prompt: bool = False) -> Tensor:
        """Return the cache's slots of `tokens` of each sequence, (seqs, tokens).

        Prompts get their blocks from one end and decodes from the other, so that phases beside each other
        don't share KV. Raises InputError where they don't fit the cache.
        """
        import torch

        size = self.shape.block_tokens
        each = -(-tokens // size)
        if seqs * each > len(self._free):
            raise InputError(
                f"{seqs} sequences of {tokens} tokens don't fit the mini-engine's cache",
                f"it has {len(self._free)} blocks of {size}",
                "sweep smaller sizes, or give it more kv_tokens",
            )
        free = self._free.flip(0) if prompt else self._free
        blocks = free[: seqs * each].view(seqs, each, 1)
        inside = torch.arange(size, device=self.device)
        return (blocks * size + inside).view(seqs, each * size)[:, :tokens]

    def prefill(self, hidden: Tensor, slots: Tensor) -> Iterator[Tensor]:
        """Yield the hidden states after each layer of a prompt whose slots are (1, context + tokens)."""
        for layer in range(self.shape.layers):
            hidden = self._layer(layer, hidden, self._prefill_attention(layer, slots))
            yield hidden

    def decode(self, hidden: Tensor, slots: Tensor) -> Tensor:
        """Return the hidden states of one token a sequence, whose slots are (seqs, context + 1)."""
        for layer in range(self.shape.layers):
            hidden = self._layer(layer, hidden, self._decode_attention(layer, slots))
        return hidden

    def operators(self, kind: OperatorClass, size: Size) -> Callable[[], None]:
        """Return what runs one step's operators of one class over all layers, its input made in advance."""
        shape = self.shape
        if kind in (OperatorClass.PREFILL_DENSE, OperatorClass.DECODE_DENSE):
            hidden = self.hidden(size.tokens)
            return lambda: self._every(lambda layer: self._layer(layer, hidden, lambda q, k, v: q))
        heads = (shape.heads, shape.kv_heads, shape.kv_heads)
        q, k, v = (
            self._matrix(size.tokens, n * shape.head_dim).view(size.tokens, n, shape.head_dim) for n in heads
        )
        if kind is OperatorClass.PREFILL_ATTENTION:
            slots = self.slots(1, size.context + size.tokens, prompt=True)
            return lambda: self._every(lambda layer: self._prefill_attention(layer, slots)(q, k, v))
        slots = self.slots(size.tokens, size.context + 1)
        return lambda: self._every(lambda layer: self._decode_attention(layer, slots)(q, k, v))

    def prefill_round(self, size: Size) -> Callable[[], Iterator[Tensor]]:
        """Return what runs a whole prompt, stopping after each layer."""
        hidden, slots = self.hidden(size.tokens), self.slots(1, size.context + size.tokens, prompt=True)
        return lambda: self.prefill(hidden, slots)

    def _every(self, run: Callable[[int], Tensor]) -> None:
        for layer in range(self.shape.layers):
            run(layer)

    def _layer(self, layer: int, hidden: Tensor, attend: Attend) -> Tensor:
        from torch.nn import functional as f

        shape = self.shape
        qkv, out, gate_up, down = self.layers[layer]
        split = [n * shape.head_dim for n in (shape.heads, shape.kv_heads, shape.kv_heads)]
        parts = (f.rms_norm(hidden, (shape.hidden,)) @ qkv).split(split, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, shape.head_dim)) for part in parts)
        hidden = hidden + attend(q, k, v).flatten(-2) @ out
        gate, up = (f.rms_norm(hidden, (shape.hidden,)) @ gate_up).chunk(2, dim=-1)
        return hidden + (f.silu(gate) * up) @ down

    def _prefill_attention(self, layer: int, slots: Tensor) -> Attend:
        from torch.nn import functional as f
        from torch.nn.attention.bias import causal_lower_right

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            own, tokens = slots[0, -len(q) :], slots.shape[1]
            self.kv[layer, 0, own], self.kv[layer, 1, own] = k, v
            keys, values = (self.kv[layer, side, slots[0]].transpose(0, 1)[None] for side in (0, 1))
            query = q.transpose(0, 1)[None]
            if len(q) == tokens:
                mixed = f.scaled_dot_product_attention(query, keys, values, is_causal=True, enable_gqa=True)
            else:
                mask = causal_lower_right(len(q), tokens)
                mixed = f.scaled_dot_product_attention(query, keys, values, mask, enable_gqa=True)
            return mixed[0].transpose(0, 1)

        return attend

    def _decode_attention(self, layer: int, slots: Tensor) -> Attend:
        from torch.nn import functional as f

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.kv[layer, 0, slots[:, -1]], self.kv[layer, 1, slots[:, -1]] = k, v
            keys, values = (self.kv[layer, side, slots].transpose(1, 2) for side in (0, 1))
            return f.scaled_dot_product_attention(q[:, :, None], keys, values, enable_gqa=True)[:, :, 0]

        return attend

    def _matrix(self, rows: int, columns: int) -> Tensor:
        import torch

        made = torch.randn(rows, columns, device=self.device, generator=self._random)
        return (made / rows**0.5).to(self.dtype)
