"""Answers prompts with real vLLM engines in this process, one after the other, and sees what they route.

Imported by what runs where vLLM is installed.
"""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # so that the engine can be seen from here
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it logs to stdout, where the tables go

import numpy as np
import torch
from vllm import LLM, SamplingParams
from vllm.config import VllmConfig
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

from hgpu.latency.routing import RoutingTrace
from hgpu.runtime.vllm.expert_options import KEY
from hgpu.runtime.vllm.expert_store import store_of

SEQS = 16


@dataclass(slots=True)
class Answers:
    """Of each batch limit, the prompts' tokens and their log-probabilities; and the cache's counters."""

    tokens: list[list[list[int]]] = field(default_factory=list)
    logprobs: list[list[list[float]]] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)
    expert_bytes: int = 0


def answered(
    model: str,
    rows: dict[str, Any] | None,
    prompts: Sequence[list[int]],
    lengths: Sequence[int],
    batches: Sequence[int],
    routing: "Routing | None" = None,
) -> Answers:
    """Answer all prompts greedily, in each batch limit after the other, by one engine with such a cache."""
    llm = engine(model, rows)
    config: VllmConfig = llm.llm_engine.vllm_config
    scheduler: Any = llm.llm_engine.engine_core.engine_core.scheduler
    answers = Answers()
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]
    greedy = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True, logprobs=0) for n in lengths]
    with routing.watched(config) if routing is not None else _nothing():
        for batch in batches:
            scheduler.max_num_active_reqs = batch
            outputs = [answer.outputs[0] for answer in llm.generate(asked, greedy, use_tqdm=False)]
            answers.tokens.append([list(one.token_ids) for one in outputs])
            answers.logprobs.append(
                [
                    [place[token].logprob for token, place in zip(one.token_ids, one.logprobs, strict=True)]
                    for one in outputs
                ]
            )
    store = store_of(config)
    if store is not None:
        answers.counters = asdict(store.counters)
        answers.expert_bytes = store.counters.host_bytes // sum(
            len(layer.cache.slot_of) for layer in store.layers
        )
    del llm, scheduler, store
    gc.collect()
    cleanup_dist_env_and_memory()
    return answers


def engine(model: str, rows: dict[str, Any] | None) -> LLM:
    """Return an engine in this process with such a cache, or with none."""
    return LLM(
        model,
        enforce_eager=True,
        dtype="bfloat16",
        max_model_len=1024,
        max_num_seqs=SEQS,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=2**26,
        additional_config={KEY: rows} if rows is not None else {},
    )


class Routing:
    """The routing of an engine without a cache, seen where vLLM calls its own experts."""

    def __init__(self) -> None:
        self._tokens: list[np.ndarray] = []
        self._ids: dict[str, list[np.ndarray]] = {}
        self._gated: dict[str, list[np.ndarray]] = {}
        self._experts = 0

    @contextmanager
    def watched(self, config: VllmConfig) -> Iterator[None]:
        """See what passes; and ask each layer's router what it says of the layer before's hidden states."""
        embed, apply = VocabParallelEmbedding.forward, UnquantizedFusedMoEMethod.apply
        compilation = config.compilation_config
        names = compilation.static_all_moe_layers
        following = dict(zip(names, [*names[1:], None], strict=True))

        def embedded(layer: Any, input_: torch.Tensor) -> torch.Tensor:
            self._tokens.append(input_.numpy().astype(np.int64))
            return embed(layer, input_)

        def applied(method: Any, **given: Any) -> torch.Tensor:
            if type(method) is not UnquantizedFusedMoEMethod:
                raise TypeError(f"without a cache, {type(method)} stands in for vLLM's own")
            name, hidden = given["layer"].layer_name, given["x"]
            self._experts = given["layer"].global_num_experts
            self._ids.setdefault(name, []).append(given["topk_ids"].numpy().astype(np.int32))
            if following[name] is not None:
                runner = compilation.static_forward_context[following[name]]
                logits, _ = runner.gate(hidden)
                chosen = runner.router._compute_routing(hidden, logits, None)[1]
                self._gated.setdefault(following[name], []).append(chosen.numpy().astype(np.int32))
            return apply(method, **given)

        VocabParallelEmbedding.forward, UnquantizedFusedMoEMethod.apply = embedded, applied
        try:
            yield
        finally:
            VocabParallelEmbedding.forward, UnquantizedFusedMoEMethod.apply = embed, apply

    def trace(self) -> RoutingTrace:
        """Return what was seen."""
        ids = np.stack([np.concatenate(one) for one in self._ids.values()], axis=1)
        gated = np.full_like(ids, -1)
        for layer, name in enumerate(self._ids):
            if name in self._gated:
                gated[:, layer] = np.concatenate(self._gated[name])
        sizes = [len(one) for one in self._tokens]
        steps = np.repeat(np.arange(len(sizes)), sizes)
        prefill = np.repeat([size > SEQS for size in sizes], sizes)
        return RoutingTrace(self._experts, ids, steps, np.concatenate(self._tokens), prefill, gated)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
