"""Prompts of an exact number of tokens, cut from a pool that is written once.

A pool is a ring of units that all have the same number of bytes, so that any stretch of it is a
slice. For completions a unit is a random token id. For chat it is a letter behind a space, which nearly every
tokenizer has as one token; what the chat template adds is measured beforehand (`probe`), and the server's
own count tells whether it holds.

Prompts begin at different places, so that a server's prefix cache never takes one for another; only
requests of a trace that share a block of a prefix are given the same units there. Another salt makes
another pool: a server that is measured twice with one seed would otherwise know the prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POOL_UNITS = 1 << 18
_STRIDE = 7919  # odd, so that as many prompts as there are units all begin elsewhere
_LETTERS = b"abcdefghilmnoprstw"
_MIX = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: neighbouring numbers end up far apart


@dataclass(frozen=True, slots=True)
class Wording:
    """What prompts are written with.

    Token ids lie in [low_id, high_id); where `high_id` is 0 letters are written, `template_tokens` fewer
    than the prompt is to have.
    """

    low_id: int = 0
    high_id: int = 0
    template_tokens: int = 0


class Prompts:
    """Cuts prompts of up to `longest` tokens; the same seeds cut the same."""

    def __init__(self, wording: Wording, longest: int, seeds: Sequence[int]) -> None:
        rng = np.random.default_rng(seeds)
        units = _ids(rng, wording) if wording.high_id else _letters(rng)
        ring, self._unit_bytes = units.tobytes(), units.shape[1]
        self._pool = ring * (1 + -(-longest // POOL_UNITS)) if longest else ring
        self._cut = 1 if wording.high_id else 0  # the comma behind the last id
        self._template_tokens = wording.template_tokens
        self._mixer = int(rng.integers(1 << 62))

    def write(self, number: int, tokens: int, blocks: Sequence[int] = (), block_tokens: int = 0) -> bytes:
        """Return a prompt of so many tokens as it stands in a request.

        It begins with a stretch for each block; what is left is this number's own.
        """
        left = tokens - self._template_tokens
        parts = []
        for block in blocks:
            if left <= 0:
                break
            parts.append(self._stretch(_mixed(block ^ self._mixer), min(left, block_tokens)))
            left -= block_tokens
        if left > 0:
            parts.append(self._stretch(number * _STRIDE + self._mixer, left))
        prompt = b"".join(parts)
        return prompt[: len(prompt) - self._cut]

    def _stretch(self, place: int, units: int) -> bytes:
        start = place % POOL_UNITS * self._unit_bytes
        return self._pool[start : start + units * self._unit_bytes]


def _ids(rng: np.random.Generator, wording: Wording) -> "np.typing.NDArray[np.uint8]":
    """Return a row of bytes an id: its digits, filled with spaces on the left, and a comma."""
    left = rng.integers(wording.low_id, wording.high_id, POOL_UNITS)
    width = len(str(wording.high_id - 1))
    units = np.full((POOL_UNITS, width + 1), ord(","), np.uint8)
    for column in reversed(range(width)):
        digit = ord("0") + left % 10
        units[:, column] = np.where((left > 0) | (column == width - 1), digit, ord(" "))
        left //= 10
    return units


def _letters(rng: np.random.Generator) -> "np.typing.NDArray[np.uint8]":
    """Return a row of bytes a letter: a space and the letter."""
    units = np.full((POOL_UNITS, 2), ord(" "), np.uint8)
    units[:, 1] = rng.choice(np.frombuffer(_LETTERS, np.uint8), POOL_UNITS)
    return units


def _mixed(number: int) -> int:
    return (number * _MIX & (1 << 64) - 1) >> 40
