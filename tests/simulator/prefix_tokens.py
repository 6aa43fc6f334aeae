"""Real tokens for the prefix blocks of a trace, and random traces that share prefixes."""

import random
from collections.abc import Sequence

import numpy as np

from hgpu.workloads.trace import Trace, ordered_trace

OWN = 1_000_000  # hashes are smaller; each request has so many tokens of its own


def prompt_tokens(trace: Trace, number: int) -> list[int]:
    """Every token of a block is its hash; those that no hash is of are the request's own."""
    assert trace.prefix_blocks is not None and trace.block_tokens is not None
    length = int(trace.input_tokens[number])
    shared = [value for value in trace.prefix_blocks[number] for _ in range(trace.block_tokens)]
    return shared[:length] + [own_token(number, place) for place in range(len(shared), length)]


def own_token(number: int, place: int) -> int:
    return OWN * (number + 1) + place


def shared_trace(
    times_s: Sequence[float],
    prompts: Sequence[tuple[tuple[int, ...], int]],
    outputs: Sequence[int],
    size: int,
) -> Trace:
    """Make a trace of prompts, each with the hashes of its leading blocks and its length."""
    hashes, inputs = zip(*prompts, strict=True)
    columns = (np.array(inputs, np.int64), np.array(outputs, np.int64))
    return ordered_trace("t", np.array(times_s, float), *columns, "test", tuple(hashes), size)


def drawn_prompt(draw: random.Random, size: int, longest: int) -> tuple[tuple[int, ...], int]:
    """Draw a prompt from few families of prefixes; some hash their last, partial block, some don't."""
    length = draw.randint(1, longest)
    family, depth = draw.randint(1, 2), draw.randint(0, -(-length // size))
    branch = draw.randint(0, depth)
    hashes = [100 * family + place if place < branch else draw.randint(500, 502) for place in range(depth)]
    return tuple(hashes), length
