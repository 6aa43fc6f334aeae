"""vLLM's method for unquantised experts, with the experts on the host and slots for some on the device.

It stands in vLLM's place for it (`register_oot`) and becomes vLLM's own again where nobody asked for a cache.
A step's routing is brought to the host; `CachedLayer` brings the experts; then vLLM's kernel is called as
ever, with the slots for weights and each expert's slot for its number. Imported by vLLM only.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from hgpu.core.errors import InputError
from hgpu.core.experts import Prefetch
from hgpu.latency.routing import Ids
from hgpu.runtime.vllm.expert_layer import Rows
from hgpu.runtime.vllm.expert_refusals import require_kernel, require_layer
from hgpu.runtime.vllm.expert_slots import Places
from hgpu.runtime.vllm.expert_store import store_here


class CachedExperts(UnquantizedFusedMoEMethod):  # type: ignore[misc]  # vllm has no types where it isn't installed
    """The method of one layer."""

    def __init__(self, moe: Any) -> None:
        super().__init__(moe)
        store = store_here()
        if store is None:
            self.__class__ = UnquantizedFusedMoEMethod
            return
        require_layer(moe, self)
        self._store = store
        self._cached = store.add(moe.num_experts, moe.experts_per_token)

    def create_weights(self, layer: Any, *args: Any, **kwargs: Any) -> None:
        """Make the weights in host memory, pinned where there is a GPU to copy them to."""
        with torch.device("cpu"):
            super().create_weights(layer, *args, **kwargs)
        if torch.cuda.is_available():
            for weight in (layer.w13_weight, layer.w2_weight):
                weight.data = torch.empty_like(weight.data, pin_memory=True)

    def process_weights_after_loading(self, layer: Any) -> None:
        """Let vLLM bring the weights into its kernel's layout, and make slots in it.

        vLLM takes one layer at a time to the device for that, and back: the device never holds all experts.
        """
        if hasattr(self._cached, "slots"):
            raise InputError(
                "the expert cache can't take new weights",
                "its slots hold experts of the old ones",
                "start the engine again",
            )
        super().process_weights_after_loading(layer)
        require_kernel(self.moe_kernel)
        self._store.give_slots(self._cached, lambda: (layer.w13_weight.data, layer.w2_weight.data))

    def apply(
        self,
        layer: Any,
        x: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        shared_experts: Any,
        shared_experts_input: torch.Tensor | None,
    ) -> torch.Tensor:
        """Compute the experts of tokens; vLLM's runner computes shared experts, which need no cache."""
        store, cached = self._store, self._cached
        compute = partial(self._compute, layer, x, topk_weights, topk_ids)
        with store.guarded():
            if store.trying():
                chosen = np.tile(np.arange(topk_ids.shape[1], dtype=np.int32), (len(topk_ids), 1))
                return compute(None, cached.slots, chosen)
            ids = topk_ids.cpu().numpy().astype(np.int32)
            store.copies.settle()
            out = cached.run(ids, partial(store.prefetch_after, cached, x), compute, x)
            store.finished(cached)
            return out

    def _compute(
        self,
        layer: Any,
        x: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        rows: Rows | None,
        places: Places,
        chosen: Ids,
    ) -> torch.Tensor:
        """Call vLLM's kernel for some rows, with each expert's place for its number."""
        if rows is not None:
            at = torch.from_numpy(rows).to(x.device)
            x, topk_weights = x[at], topk_weights[at]
        assert self.moe_kernel is not None
        result: torch.Tensor = self.moe_kernel.apply(
            hidden_states=x,
            w1=places.tensors[0],
            w2=places.tensors[1],
            topk_weights=topk_weights,
            topk_ids=torch.from_numpy(np.ascontiguousarray(chosen)).to(x.device, topk_ids.dtype),
            activation=layer.activation,
            global_num_experts=places.count,
            expert_map=None,
            apply_router_weight_on_input=layer.apply_router_weight_on_input,
        )
        return result


class WatchedEmbedding(VocabParallelEmbedding):  # type: ignore[misc]
    """The first layer of a model: where a configuration can be refused, and a step's token ids be seen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        store = store_here()
        if store is None or store.options.prefetch is not Prefetch.TOKEN or store.layers:
            self.__class__ = VocabParallelEmbedding
            return
        self._store = store

    def forward(self, input_: torch.Tensor) -> torch.Tensor:
        """Embed tokens, and let the cache see them."""
        self._store.saw(input_)
        result: torch.Tensor = super().forward(input_)
        return result


def register_classes() -> list[str]:
    """Stand in for vLLM's own classes in this process, once; return those that another plugin has taken."""
    ours = {UnquantizedFusedMoEMethod: CachedExperts, VocabParallelEmbedding: WatchedEmbedding}
    taken = [
        kind.__name__ for kind, own in ours.items() if op_registry_oot.get(kind.__name__, own) is not own
    ]
    for kind, own in ours.items() if not taken else ():
        if kind.__name__ not in op_registry_oot:
            kind.register_oot(own)
    return taken
