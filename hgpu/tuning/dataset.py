"""From text files to sequences of tokens of one length, and which of them a step trains on."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import InputError

Encode = Callable[[str], Sequence[int]]
FORMS = (".txt", ".jsonl")
HELD_OUT_EVERY = 20  # one sequence of so many is kept from training,
HELD_OUT_MOST = 64  # up to so many


@dataclass(frozen=True, slots=True)
class Sequences:
    """Rows of tokens to train on, and those held out; `documents` were read."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    documents: int


def data_files(data: str) -> list[Path]:
    """Return a file of texts, or a folder's .txt and .jsonl files by name; InputError where it has none."""
    path = Path(data)
    if not path.is_dir():
        return [path]
    if files := sorted(file for file in path.iterdir() if file.suffix in FORMS):
        return files
    raise InputError(f"no data in {path}", "it has no .txt or .jsonl file", "add one")


def read_documents(data: str) -> list[str]:
    """Return the texts of a file or a folder: a .txt file is one, and so is each line of a .jsonl file, which
    is an object with a `text`.

    Raises InputError that names the file and the line.
    """
    return [text for path in data_files(data) for text in _texts(path)]


def _texts(path: Path) -> list[str]:
    if path.suffix not in FORMS:
        raise InputError(
            f"can't read data from {path}",
            f"'{path.suffix or path.name}' isn't a known form",
            f"give {' or '.join(FORMS)}",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it isn't UTF-8"
        raise InputError(f"can't read data from {path}", why, "check the path and the file") from error
    if path.suffix == ".txt":
        return [text] if text.strip() else []
    lines = enumerate(text.splitlines(), start=1)
    return [_row(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def _row(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON", str(error), "put one object on each line") from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise InputError(
            f"{where}: no text", "it is no object with a string `text`", 'write it as {"text": "..."}'
        )
    return text


def pack(documents: Sequence[str], encode: Encode, end: int, context: int) -> Sequences:
    """Return all documents as rows of `context` tokens, each document ended by the token `end`.

    What doesn't fill the last row is left out. Of 20 rows one is held out, evenly spread, up to 64.
    Raises InputError where the documents don't fill one row.
    """
    tokens = np.array([token for text in documents for token in (*encode(text), end)], dtype=np.int64)
    count = len(tokens) // context
    if not count:
        raise InputError(
            "too little data",
            f"{len(documents)} documents have {len(tokens)} tokens, a sequence has {context}",
            "add data or lower `context`",
        )
    rows = tokens[: count * context].reshape(count, context)
    kept = np.zeros(count, dtype=bool)
    held = min(count // HELD_OUT_EVERY, HELD_OUT_MOST)
    kept[np.linspace(0, count - 1, held, dtype=int)] = True
    return Sequences(rows[~kept], rows[kept], len(documents))


def numbers_of_step(step: int, batch: int, count: int, seed: int) -> list[int]:
    """Return which of `count` rows a step (from 0) trains on: each epoch has an order of its own.

    It depends on nothing else, so that a run that goes on takes what an undisturbed one would have taken.
    """
    numbers = range(step * batch, (step + 1) * batch)
    return [int(_order(number // count, count, seed)[number % count]) for number in numbers]


@lru_cache(maxsize=2)  # a step may end one epoch and begin the next
def _order(epoch: int, count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)
