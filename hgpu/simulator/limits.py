"""What an engine can't do at all: options that contradict each other, requests that never fit."""

from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.workloads.trace import Ints


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


def check_lengths(
    inputs: Ints, outputs: Ints, engine: EngineOptions, total_blocks: int, block_tokens: int
) -> None:
    """Refuse requests that can never be served.

    The last token of a request is yielded and never computed: it needs no place in the cache.
    """
    tokens = inputs + outputs
    rules = (
        ((inputs < 1) | (outputs < 1), "have no input or no output tokens", "leave them out"),
        (
            tokens > engine.max_model_len,
            f"are longer than max_model_len {engine.max_model_len} (the longest has {tokens.max()} tokens)",
            "raise max_model_len, or leave them out",
        ),
        (
            -(-(tokens - 1) // block_tokens) > total_blocks,
            f"don't fit the KV cache of {total_blocks} blocks of {block_tokens} tokens "
            f"(the longest has {tokens.max()} tokens)",
            "give the engine more memory: a larger GPU, more of them, or a smaller weight format",
        ),
    )
    for broken, why, fix in rules:
        if broken.any():
            raise InputError(
                f"{broken.sum()} of {len(tokens)} requests can never be served", f"they {why}", fix
            )
