"""What an engine can't do at all: options that contradict each other, requests that never fit."""

import numpy as np
import numpy.typing as npt

from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.workloads.trace import Ints

Bools = npt.NDArray[np.bool_]


def check_options(engine: EngineOptions, block_tokens: int) -> None:
    """Refuse options that vLLM refuses too (its `SchedulerConfig`)."""
    if block_tokens < 1 or engine.max_num_seqs < 1:
        raise InputError("an engine can't run without sequences or with empty blocks")
    if engine.max_num_batched_tokens < engine.max_num_seqs:
        raise InputError(
            f"max_num_batched_tokens {engine.max_num_batched_tokens} is below "
            f"max_num_seqs {engine.max_num_seqs}",
            "vLLM refuses that: a step could not decode a token for each sequence",
            "raise the one or lower the other",
        )


def servable(
    inputs: Ints, outputs: Ints, engine: EngineOptions, total_blocks: int, block_tokens: int
) -> Bools:
    """Tell which requests an engine can serve at all."""
    empty, too_long, too_large = _broken(inputs, outputs, engine, total_blocks, block_tokens)
    return ~(empty | too_long | too_large)


def check_lengths(
    inputs: Ints, outputs: Ints, engine: EngineOptions, total_blocks: int, block_tokens: int
) -> None:
    """Refuse requests that can never be served, and say why."""
    longest = (inputs + outputs).max()
    reasons = (
        ("have no input or no output tokens", "leave them out"),
        (
            f"are longer than max_model_len {engine.max_model_len} (the longest has {longest} tokens)",
            "raise max_model_len, or leave them out",
        ),
        (
            f"don't fit the KV cache of {total_blocks} blocks of {block_tokens} tokens "
            f"(the longest has {longest} tokens)",
            "give the engine more memory: a larger GPU, more of them, or a smaller weight format",
        ),
    )
    rules = _broken(inputs, outputs, engine, total_blocks, block_tokens)
    for broken, (why, fix) in zip(rules, reasons, strict=True):
        if broken.any():
            raise InputError(
                f"{broken.sum()} of {len(broken)} requests can never be served", f"they {why}", fix
            )


def _broken(
    inputs: Ints, outputs: Ints, engine: EngineOptions, total_blocks: int, block_tokens: int
) -> tuple[Bools, Bools, Bools]:
    """Tell which requests are empty, too long for the engine's context, too long for its cache.

    The last token of a request is yielded and never computed: it needs no place in the cache.
    """
    tokens = inputs + outputs
    return (
        (inputs < 1) | (outputs < 1),
        tokens > engine.max_model_len,
        -(-(tokens - 1) // block_tokens) > total_blocks,
    )
