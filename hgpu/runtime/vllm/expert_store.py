"""The expert cache of one engine: its layers, what they share, and what is predicted of them.

Imported by vLLM only. Methods of vLLM's layers find their engine's by the configuration under which they are
made; without the key `hgpu_experts` in it there is none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch
from vllm.config import get_current_vllm_config_or_none
from vllm.forward_context import get_forward_context, is_forward_context_available

from hgpu.core.errors import EngineError, InputError
from hgpu.core.experts import Prefetch
from hgpu.latency.expert_hints import ExpertHints
from hgpu.latency.expert_policy import LayerCache, pinned_of
from hgpu.latency.hints_file import load_hints
from hgpu.latency.routing import Ids
from hgpu.runtime.vllm.expert_copies import Copies, copies_for
from hgpu.runtime.vllm.expert_counters import CounterFile, ExpertCounters, counters_path
from hgpu.runtime.vllm.expert_layer import CachedLayer
from hgpu.runtime.vllm.expert_options import KEY, ExpertOptions, expert_options_of
from hgpu.runtime.vllm.expert_refusals import require_engine, require_hints
from hgpu.runtime.vllm.expert_slots import Places, Weights
from hgpu.runtime.vllm.features import require_expert_features


class ExpertStore:
    """The cached layers in their order, the wide buffer that they share, and the counters."""

    def __init__(self, options: ExpertOptions, config: Any) -> None:
        require_expert_features()
        require_engine(config)
        self.options, self.config = options, config
        self.hints: ExpertHints | None = load_hints(options.hints) if options.hints is not None else None
        if options.prefetch is Prefetch.TOKEN and (self.hints is None or self.hints.table is None):
            raise InputError(f"the hints of {KEY} have no table from tokens to experts", str(options.hints))
        self.counters = ExpertCounters()
        self.copies: Copies = copies_for(torch.device(config.device_config.device))
        self.layers: list[CachedLayer] = []
        self._wide: Places | None = None
        self._tokens: Any = None
        self._begun = self._serving = False
        self._failed: BaseException | None = None
        self._file = CounterFile(counters_path())
        finalize(self, self._file.close)

    # while the model is made

    def add(self, experts: int, per_token: int) -> CachedLayer:
        """Add the next layer. Raises InputError where its slots or the hints don't fit it."""
        number = len(self.layers)
        require_hints(self.hints, number, experts, per_token)
        slots = self.options.slots_of(number, experts, per_token)
        ranking = self.hints.ranking[number].tolist() if self.hints is not None else ()
        pinned = pinned_of(ranking, slots, per_token, self.options.policy)
        cache = LayerCache(experts, per_token, slots, self.options.policy, pinned, self.options.wide)
        self.layers.append(CachedLayer(cache, self.counters, self.copies))
        return self.layers[-1]

    def give_slots(self, layer: CachedLayer, read: Callable[[], Weights]) -> None:
        """Make a layer's slots, where its weights are while they are processed: on the device.

        All layers have been made by then. Raises InputError for options of a model with others.
        """
        self._require_whole()
        layer.weights, weights = read, read()
        layer.slots = Places(weights, layer.cache.slots)
        self.counters.resident_bytes += layer.slots.nbytes
        self.counters.host_bytes += sum(one.nbytes for one in weights)
        if self.options.wide:
            layer.wide = self._wide_for(weights)

    def _wide_for(self, weights: Weights) -> Places:
        if self._wide is None:
            self._wide = Places(weights, len(weights[0]))
            self.counters.wide_bytes = self._wide.nbytes
        shapes = [one.shape for one in weights]
        if shapes != [one.shape for one in self._wide.tensors]:
            raise InputError(
                "the expert cache can't share a wide buffer between layers",
                "their experts have different shapes",
                'give "wide": false',
            )
        return self._wide

    # while it serves

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Begin once, and compute nothing after a failure: what a copy left undone is never looked at."""
        if not self._begun:
            self._begin()
        if self._failed is not None:
            raise EngineError(
                "the expert cache has failed", f"{self._failed!r}", "start the engine again"
            ) from self._failed
        try:
            yield
        except BaseException as error:
            self._failed = error
            raise

    def trying(self) -> bool:
        """Tell whether vLLM only tries the model out: before it serves, and without attention to anything.

        vLLM's attention gives zeros then, so that what is computed means nothing.
        """
        if not self._serving and is_forward_context_available():
            self._serving = get_forward_context().attn_metadata is not None
            return not self._serving
        return False

    def saw(self, tokens: torch.Tensor) -> None:
        """Take a step's token ids when they are embedded, and prefetch for the first layer."""
        if not self.trying():
            with self.guarded():
                self._tokens = tokens.cpu().numpy().astype(np.int64)
                self._by_token(0)

    def prefetch_after(self, layer: CachedLayer, hidden: torch.Tensor) -> None:
        """Prefetch for the layer that follows."""
        number = self.layers.index(layer) + 1
        if number == len(self.layers):
            return
        if self.options.prefetch is Prefetch.TOKEN:
            self._by_token(number)
        elif self.options.prefetch is Prefetch.NEXT_GATE:
            self.layers[number].prefetch(self._by_gate(number, hidden))

    def finished(self, layer: CachedLayer) -> None:
        """Show the counters when a step is through the last layer."""
        if layer is self.layers[-1]:
            self.counters.steps += 1
            self.counters.stall_s = self.copies.stall_s
            self._file.publish(self.counters)
            self._tokens = None

    def _begin(self) -> None:
        """Fill what is pinned, before anything is computed."""
        for layer in self.layers:
            layer.begin()
        self.copies.stall_s = 0.0
        self._begun = True

    def _require_whole(self) -> None:
        slots, layers = self.options.slots, len(self.layers)
        if isinstance(slots, tuple) and len(slots) != layers:
            raise InputError(f"`slots` of {KEY} are those of {len(slots)} layers", f"the model has {layers}")
        if self.hints is not None and len(self.hints.ranking) != layers:
            raise InputError(
                f"the hints are of {len(self.hints.ranking)} layers with experts",
                f"the model has {layers}",
                "record a routing trace of this model",
            )
        for number in range(1, layers) if self.options.prefetch is Prefetch.NEXT_GATE else ():
            if self._runner(number).gate is None:
                raise InputError(
                    "the next layer's gate can't be asked for this model",
                    "its router isn't in vLLM's MoE runner",
                    'give "prefetch": "none" or "token"',
                )

    def _runner(self, number: int) -> Any:
        compilation = self.config.compilation_config
        return compilation.static_forward_context[compilation.static_all_moe_layers[number]]

    def _by_token(self, number: int) -> None:
        if self._tokens is not None and self.hints is not None:
            self.layers[number].prefetch(self.hints.of_tokens(self._tokens, number))

    def _by_gate(self, number: int, hidden: torch.Tensor) -> Ids:
        """Return what the router of a layer would choose for the hidden states of the one before it."""
        runner = self._runner(number)
        logits, _ = runner.gate(hidden)
        _, chosen = runner.router._compute_routing(hidden, logits, None)
        ids: Ids = chosen.cpu().numpy().astype(np.int32)
        return ids


_STORES: WeakValueDictionary[str, ExpertStore] = WeakValueDictionary()


def store_here() -> ExpertStore | None:
    """Return the store of the configuration under which vLLM makes a model now; None where nobody asked.

    Raises InputError for options and configurations that can't be.
    """
    config = get_current_vllm_config_or_none()
    options = None if config is None else expert_options_of(config.additional_config)
    if config is None or options is None:
        return None
    store = store_of(config)
    if store is None:
        store = _STORES[config.instance_id] = ExpertStore(options, config)
    return store


def store_of(config: Any) -> ExpertStore | None:
    """Return the store of an engine in this process, by its configuration; None where it has none."""
    return _STORES.get(config.instance_id)
