"""From documents in tokens to sequences of one length, and which of them a step trains on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import InputError

Tokens = Sequence[int]
HELD_OUT_EVERY = 20  # one sequence of so many is kept from training,
HELD_OUT_MOST = 64  # up to so many
NOT_LEARNED = -100  # the label that PyTorch's cross entropy leaves out


@dataclass(frozen=True, slots=True)
class Rows:
    """Sequences of tokens, and their labels: the token itself where it is learned, else NOT_LEARNED.

    Both are rows × context. Labels are of their own place: what predicts a token is what stands before it,
    so that the first of a row is never learned.
    """

    tokens: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[np.bool_]) -> "Rows":
        return Rows(self.tokens[rows], self.labels[rows])

    @property
    def learned(self) -> int:
        """Tokens that are predicted and learned."""
        return int((self.labels[:, 1:] != NOT_LEARNED).sum())

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row up to the last that is learned; what follows is filling."""
        learned = self.labels != NOT_LEARNED
        lengths: NDArray[np.int64] = learned.shape[1] - np.argmax(learned[:, ::-1], axis=1)
        return lengths

    def parts(self, size: int) -> list["Rows"]:
        """Return runs of at most `size` rows, each without the columns that none of its rows needs."""
        parts = [self[start : start + size] for start in range(0, len(self), size)]
        return [
            Rows(part.tokens[:, :width], part.labels[:, :width])
            for part in parts
            for width in [int(part.lengths.max())]
        ]


@dataclass(frozen=True, slots=True)
class Sequences:
    """Rows to train on, and those held out; `documents` were read."""

    train: Rows
    held_out: Rows
    documents: int


def pack(documents: Sequence[Tokens], end: int, context: int) -> Sequences:
    """Return all texts as rows of `context` tokens, each text ended by the token `end`, all of it learned.

    What doesn't fill the last row is left out. Raises InputError where the texts don't fill one row.
    """
    if context < 2:
        raise InputError(
            "a context of 1 token teaches nothing", "a token is learned from those before it", "raise it"
        )
    tokens = np.array([token for text in documents for token in (*text, end)], dtype=np.int64)
    count = len(tokens) // context
    if not count:
        raise InputError(
            "too little data",
            f"{len(documents)} documents have {len(tokens)} tokens, a sequence has {context}",
            "add data or lower `context`",
        )
    rows = tokens[: count * context].reshape(count, context)
    return _held_out(Rows(rows, rows), len(documents))


def fill(examples: Sequence[tuple[Tokens, Tokens]], end: int, context: int) -> Sequences:
    """Return a row for each prompt with its completion, filled with `end`; the completion is learned.

    Raises InputError where some don't fit a row, or are empty.
    """
    lengths = [len(prompt) + len(completion) for prompt, completion in examples]
    if longer := sum(length > context for length in lengths):
        raise InputError(
            f"{longer} of {len(examples)} examples don't fit a sequence",
            f"the longest has {max(lengths)} tokens, a sequence {context}",
            f"set context to {max(lengths)}, or leave them out of the data",
        )
    if empty := sum(len(prompt) + len(completion) < 2 for prompt, completion in examples):
        raise InputError(
            f"{empty} of {len(examples)} examples have nothing to learn",
            "prompt and completion are empty, and a token is learned from those before it",
            "take them out of the data",
        )
    tokens = np.full((len(examples), context), end, dtype=np.int64)
    labels = np.full_like(tokens, NOT_LEARNED)
    for row, (prompt, completion) in enumerate(examples):
        length = lengths[row]
        tokens[row, :length] = (*prompt, *completion)
        labels[row, len(prompt) : length] = completion
    return _held_out(Rows(tokens, labels), len(examples))


def _held_out(rows: Rows, documents: int) -> Sequences:
    """Keep one of 20 rows from training, evenly spread, up to 64."""
    kept = np.zeros(len(rows), dtype=bool)
    held = min(len(rows) // HELD_OUT_EVERY, HELD_OUT_MOST)
    kept[np.linspace(0, len(rows) - 1, held, dtype=int)] = True
    return Sequences(rows[~kept], rows[kept], documents)


def numbers_of_step(step: int, batch: int, count: int, seed: int) -> list[int]:
    """Return which of `count` rows a step (from 0) trains on: each epoch has an order of its own.

    It depends on nothing else, so that a run that goes on takes what an undisturbed one would have taken.
    """
    numbers = range(step * batch, (step + 1) * batch)
    return [int(_order(number // count, count, seed)[number % count]) for number in numbers]


@lru_cache(maxsize=2)  # a step may end one epoch and begin the next
def _order(epoch: int, count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)
