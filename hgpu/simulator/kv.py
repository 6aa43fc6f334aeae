"""The paged KV cache, counted in blocks.

A block holds `block_tokens` tokens of one sequence, so a sequence of n computed tokens holds
⌈n/b⌉ of them (PagedAttention, arXiv 2309.06180). A sequence that decodes opens a new block
every b steps. With d its computed tokens less the number of steps done by then (its `offset`,
which stays the same while it decodes), it opens one in step s when s ≡ 1 − d (mod b). So a
counter for each residue tells what many steps of many sequences need, without looking at one
of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(slots=True)
class KvBlocks:
    """`total` blocks of `block_tokens` tokens, and when the decoding sequences open new ones."""

    total: int
    block_tokens: int
    used: int = 0
    most_used: int = 0
    decodes: int = 0
    due: list[int] = field(init=False)
    keeps_order: ClassVar[bool] = False  # whether it matters who gives blocks back first

    def __post_init__(self) -> None:
        """Start with nobody decoding."""
        self.due = [0] * self.block_tokens

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self.total - self.used

    def expect(
        self, inputs: Sequence[int], outputs: Sequence[int], prefixes: Sequence[Sequence[int]]
    ) -> None:
        """Note sequences that will come; counting needs to know nothing of them."""

    def blocks(self, tokens: int) -> int:
        """Return the blocks that a sequence of `tokens` computed tokens holds."""
        return -(-tokens // self.block_tokens)

    def take(self, blocks: int) -> None:
        """Give blocks to sequences; there must be enough of them."""
        self.used += blocks

    def fits(self, request: int, tokens: int) -> bool:
        """Tell whether a sequence that waits, of `tokens` tokens to compute, finds free blocks for them."""
        return -(-tokens // self.block_tokens) <= self.total - self.used

    def admit(self, request: int, tokens: int) -> int:
        """Let it in; return how many of its tokens needn't be computed, −1 where it doesn't fit."""
        return 0 if -(-tokens // self.block_tokens) <= self.total - self.used else -1

    def extend(self, request: int, before: int, after: int) -> bool:
        """Take blocks for the tokens of a chunk, from `before` to `after`; False where they don't last."""
        blocks = -(-after // self.block_tokens) - -(-before // self.block_tokens)
        if blocks > self.total - self.used:
            return False
        self.used += blocks
        return True

    def note_use(self) -> None:
        """Keep the most blocks that were in use once a step was scheduled."""
        self.most_used = max(self.most_used, self.used)

    def give_back(self, request: int, tokens: int) -> None:
        """Free what a sequence of `tokens` computed tokens holds."""
        self.used -= self.blocks(tokens)

    def join(self, offset: int) -> None:
        """Count a sequence among those that decode."""
        self.due[(1 - offset) % self.block_tokens] += 1
        self.decodes += 1

    def leave(self, offset: int) -> None:
        """Count it no more."""
        self.due[(1 - offset) % self.block_tokens] -= 1
        self.decodes -= 1

    def opening(self, step: int) -> int:
        """Return the offset, modulo the block size, of the sequences that open a block in a step."""
        return (1 - step) % self.block_tokens

    def due_in(self, step: int) -> int:
        """Return the blocks that the decoding sequences open in a step."""
        return self.due[step % self.block_tokens]

    def due_over(self, step: int, steps: int) -> int:
        """Return the blocks that they open in `steps` steps from `step` on."""
        rounds, rest = divmod(steps, self.block_tokens)
        first = step % self.block_tokens
        wrapped = max(0, first + rest - self.block_tokens)
        return rounds * self.decodes + sum(self.due[first : first + rest]) + sum(self.due[:wrapped])

    def steps_that_fit(self, step: int, most: int) -> int:
        """Return for how many steps from `step` on, up to `most`, free blocks last."""
        rounds = self.free // self.decodes
        if most <= rounds * self.block_tokens:
            return most
        left = self.free - rounds * self.decodes
        for ahead in range(self.block_tokens):
            left -= self.due_in(step + ahead)
            if left < 0:
                return min(most, rounds * self.block_tokens + ahead)
        raise AssertionError("a round opens more blocks than were left")
