"""ShareGPT conversations: one JSON list of `{"conversations": [{"from", "value"}, ...]}`.

The file has texts, no tokens and no times. A request is the first turn of a conversation with the answer
to it, as serving benchmarks take it. Lengths are *estimated* at 4 characters a token (English text under a
vocabulary of 100,000; other languages and code have more tokens): count with a tokenizer where that
matters. All requests arrive at 0 s: whoever replays them gives a rate.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hgpu.core.errors import InputError
from hgpu.workloads.fields import read_text
from hgpu.workloads.trace import Trace, ordered_trace

CHARACTERS_A_TOKEN = 4


def looks_like_sharegpt(first_line: str) -> bool:
    """Whether a file's first line begins a JSON list; no other format is one."""
    return first_line.lstrip().startswith("[")


def read_sharegpt_json(path: Path) -> Trace:
    """Return a request for each conversation that has a turn and its answer. Raises InputError."""
    try:
        conversations = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"trace {path} isn't whole JSON", str(error), "fetch the file again") from error
    if not isinstance(conversations, list):
        raise InputError(f"trace {path} isn't ShareGPT", "it isn't a JSON list", "give a list of objects")
    lengths = [pair for number, entry in enumerate(conversations) for pair in _first(path, number, entry)]
    if not lengths:
        raise InputError(
            f"trace {path} has no request",
            f"none of its {len(conversations)} conversations has a turn and an answer",
            "give a file with conversations of two turns or more",
        )
    return ordered_trace(
        name=path.stem,
        times_s=np.zeros(len(lengths)),
        input_tokens=np.array([pair[0] for pair in lengths], dtype=np.int64),
        output_tokens=np.array([pair[1] for pair in lengths], dtype=np.int64),
        source=f"ShareGPT, {path.name}; tokens estimated at {CHARACTERS_A_TOKEN} characters each, no times",
    )


def _first(path: Path, number: int, entry: Any) -> Iterator[tuple[int, int]]:
    """Yield the lengths of a conversation's first turn and answer; nothing where it has no two turns."""
    try:
        turns = [str(turn["value"]) for turn in entry["conversations"]]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"bad conversation in trace: {path}, number {number}",
            f"it has no turns with values ({error!r})",
            "correct or remove this conversation",
        ) from error
    if len(turns) >= 2:
        yield _tokens(turns[0]), _tokens(turns[1])


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_A_TOKEN)
