"""A KV connector over a folder, for the two engines of a pair on a CPU. Imported by vLLM only.

vLLM's own ExampleConnector shows how one is made and says that it is for debugging: it keeps a prompt as a
whole, so that one which was computed in chunks is saved in part and stops the engine that loads it; it takes
a folder that is still being written for a finished one; and nothing ever deletes what it writes. Here
each full block of a prompt is a file of its own, named by vLLM's hash of all tokens up to its end.

A producer saves blocks after the step that completes them. A consumer takes as many blocks from the folder as
follow what its own cache has; one that has gone or can't be read by then is reported to vLLM, which computes
it (`kv_load_failure_policy: recompute`). Loading is part of the step, so it holds up the others in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)
from vllm.logger import init_logger

from hgpu.core.errors import InputError
from hgpu.runtime.vllm.block_folder import BlockFolder
from hgpu.runtime.vllm.features import require_connector_features
from hgpu.runtime.vllm.folder_options import FOLDER, LIMIT

logger = init_logger(f"vllm.{__name__}")


@dataclass(frozen=True, slots=True)
class Block:
    """A block's hash, and where it is in this engine's cache."""

    name: str
    number: int


@dataclass
class StepBlocks(KVConnectorMetadata):  # type: ignore[misc]  # vLLM has no types here
    """What a step loads before it computes, and saves after."""

    loads: list[Block] = field(default_factory=list)
    saves: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class Tracked:
    """A request, the numbers of its blocks in this engine's cache, and how many of them have been saved."""

    request: Any
    numbers: list[int] = field(default_factory=list)
    saved: int = 0


class FolderConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """The connector: one object decides beside the scheduler, one moves blocks beside each rank's model."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        require_connector_features()
        if (
            len(kv_cache_config.kv_cache_groups) != 1
            or vllm_config.parallel_config.pipeline_parallel_size > 1
        ):
            raise InputError(
                "FolderConnector can't pass this model's KV cache on",
                "it knows caches of one kind of layer, in one pipeline stage",
                "run one engine in its place",
            )
        transfer = vllm_config.kv_transfer_config
        self._saves = transfer.is_kv_producer
        self._loads = transfer.is_kv_consumer
        self._ranks = vllm_config.parallel_config.tensor_parallel_size
        limit = int(transfer.get_from_extra_config(LIMIT, 0)) // self._ranks if self._saves else None
        self._folder = BlockFolder(Path(transfer.get_from_extra_config(FOLDER, "")), limit)
        self._block_tokens = kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size
        self._tracked: dict[str, Tracked] = {}
        self._first: dict[str, int] = {}  # the first block that a request may load
        self._to_load: list[Block] = []
        self._caches: dict[str, torch.Tensor] = {}
        self._lost: set[int] = set()

    # beside the scheduler

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """Count the tokens of blocks that follow what this engine has; a prompt's last token is computed."""
        if not self._loads:
            return 0, False
        first = last = num_computed_tokens // self._block_tokens
        most = (request.num_tokens - 1) // self._block_tokens
        while last < most and self._has(request.block_hashes[last].hex()):
            last += 1
        self._first[request.request_id] = first
        return (last - first) * self._block_tokens, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Note a request that is admitted, and which of its blocks are to be filled from the folder."""
        self._tracked.setdefault(request.request_id, Tracked(request))
        first = self._first.pop(request.request_id, 0)
        numbers = blocks.get_block_ids()[0]
        for place in range(first, first + num_external_tokens // self._block_tokens):
            self._to_load.append(Block(request.block_hashes[place].hex(), numbers[place]))

    def build_connector_meta(self, scheduler_output: Any) -> StepBlocks:
        """Return what the step loads, and the blocks of prompts that it completes."""
        for new in scheduler_output.scheduled_new_reqs:
            self._tracked[new.req_id].numbers = list(new.block_ids[0])
        cached = scheduler_output.scheduled_cached_reqs
        for name, groups in zip(cached.req_ids, cached.new_block_ids, strict=True):
            if name in cached.resumed_req_ids:
                self._tracked[name].numbers = []
            self._tracked[name].numbers += groups[0] if groups else []
        meta = StepBlocks(self._to_load, list(self._completed(scheduler_output)))
        self._to_load = []
        return meta

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Forget a request; its blocks are saved by the time that their step ends."""
        self._tracked.pop(request.request_id, None)
        self._first.pop(request.request_id, None)
        return False, None

    def _completed(self, scheduler_output: Any) -> Iterator[Block]:
        cached = scheduler_output.scheduled_cached_reqs
        before = {new.req_id: new.num_computed_tokens for new in scheduler_output.scheduled_new_reqs}
        before |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        for name, tokens in before.items() if self._saves else ():
            one = self._tracked[name]
            computed = min(
                tokens + scheduler_output.num_scheduled_tokens[name], one.request.num_prompt_tokens
            )
            whole = computed // self._block_tokens
            for place in range(one.saved, whole):
                block = Block(one.request.block_hashes[place].hex(), one.numbers[place])
                if not self._has(block.name):
                    yield block
            one.saved = max(one.saved, whole)

    def _has(self, name: str) -> bool:
        return all(self._folder.has(_of_rank(name, rank)) for rank in range(self._ranks))

    # beside the model

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Take the layers' caches, whose first dimension counts blocks."""
        blocks = self._kv_cache_config.num_blocks
        for name, cache in kv_caches.items():
            if cache.shape[0] != blocks:
                raise InputError(
                    "FolderConnector can't read this engine's KV cache",
                    f"{name} has the shape {tuple(cache.shape)}, not {blocks} blocks",
                    "run one engine in its place",
                )
        self._caches = kv_caches

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Fill blocks from the folder; what can't be read is left to be computed."""
        for block in self._get_connector_metadata().loads:
            try:
                layers = load(self._folder.read(_of_rank(block.name, get_tensor_model_parallel_rank())))
                for name, cache in self._caches.items():
                    cache[block.number].copy_(layers[name])
            except (OSError, SafetensorError, KeyError, RuntimeError) as error:
                logger.warning("a block that was to be loaded is computed instead: %s", error)
                self._lost.add(block.number)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Return the blocks that could not be loaded since the last call."""
        lost, self._lost = self._lost, set()
        return lost

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Return at once: all layers are loaded before the step begins."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Do nothing: blocks are saved with all their layers, after the step."""

    def wait_for_save(self) -> None:
        """Save the blocks that the step has completed; where the disk is full, they aren't passed on."""
        for block in self._get_connector_metadata().saves:
            layers = {
                name: cache[block.number].detach().cpu().contiguous() for name, cache in self._caches.items()
            }
            try:
                self._folder.write(_of_rank(block.name, get_tensor_model_parallel_rank()), save(layers))
            except OSError as error:
                logger.warning("a block can't be passed on: %s", error)


def _of_rank(name: str, rank: int) -> str:
    return f"{name}-{rank}"
