"""The paged KV cache with prefix caching, as vLLM V1's `BlockPool` keeps it.

A full block is *cached* under its name (`hgpu.simulator.block_names`) from the step that computes its
last token. A sequence that is admitted holds the longest run of cached blocks that it begins with, less
what would leave no token to compute: its last token yields the next one, so a hit of all blocks leaves
out the last. When a sequence goes, its blocks are released from the tail. One that nobody holds any more
stays cached and is *idle*; it counts as free. One that isn't full is of no use to anybody. Idle
blocks are evicted, the one released longest ago first, once all other free blocks are taken.

Blocks with equal names aren't merged: who computes again what is cached (the last block of a full hit)
holds a second one. The older one is found first.

While a sequence decodes, its blocks are only counted (`hgpu.simulator.kv`): they are its own, so nobody
looks for them before it goes. Eviction is then all that a step does to the cache, and many steps do
together what they do one by one.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from hgpu.simulator.block_names import BlockNames
from hgpu.simulator.kv import KvBlocks


@dataclass(slots=True, kw_only=True)
class PrefixBlocks(KvBlocks):
    """`used` counts blocks that are held: one that many hold counts once, idle ones don't.

    - `names`: the names of the full blocks of each sequence;
    - `holders`: how many sequences hold a cached block. A block is known by its name, which is 0 or more; one
      that is cached while there is another of that name, by a number of its own below 0;
    - `alike`: of names that had several blocks, those that are cached, the oldest first;
    - `name_of`: the name of a block that has a number; `copies` such numbers were given so far;
    - `idle`: cached blocks that nobody holds, in the order of eviction;
    - `tables`: the full blocks of each sequence that runs, those that it decoded left out.
    """

    names: BlockNames
    holders: dict[int, int] = field(default_factory=dict)
    alike: dict[int, list[int]] = field(default_factory=dict)
    name_of: dict[int, int] = field(default_factory=dict)
    idle: OrderedDict[int, None] = field(default_factory=OrderedDict)
    tables: dict[int, list[int]] = field(default_factory=dict)
    copies: int = 0
    keeps_order: ClassVar[bool] = True

    def expect(
        self, inputs: Sequence[int], outputs: Sequence[int], prefixes: Sequence[Sequence[int]]
    ) -> None:
        """Name the blocks of sequences that will come; without prefixes, nobody shares one."""
        for lengths in zip(prefixes or [()] * len(inputs), inputs, outputs, strict=True):
            self.names.add(*lengths)

    def take(self, blocks: int) -> None:
        """Give blocks to sequences; idle ones are evicted where others aren't enough."""
        self.used += blocks
        for _ in range(len(self.idle) - self.free):
            block, _ = self.idle.popitem(last=False)
            del self.holders[block]
            if self.alike:
                self._forget(block)

    def fits(self, request: int, tokens: int) -> bool:
        """Tell whether free blocks last for those that nobody holds yet; idle hits are free ones too."""
        return self.blocks(tokens) <= self.free or self._fits(tokens, self._hits(request, tokens))

    def admit(self, request: int, tokens: int) -> int:
        """Let a sequence hold what is cached of it; return the tokens of that, −1 where it doesn't fit."""
        hits = self._hits(request, tokens)
        if not self._fits(tokens, hits):
            return -1
        for block in hits:
            if not self.holders[block]:
                del self.idle[block]
                self.used += 1
            self.holders[block] += 1
        self.tables[request] = hits
        return len(hits) * self.block_tokens

    def extend(self, request: int, before: int, after: int) -> bool:
        """Take blocks for the tokens of a chunk, and cache those that it fills."""
        blocks = self.blocks(after) - self.blocks(before)
        if blocks > self.free:
            return False
        self.take(blocks)
        self._fill(request, after)
        return True

    def give_back(self, request: int, tokens: int) -> None:
        """Release what a sequence of `tokens` computed tokens holds, the tail first."""
        self._fill(request, tokens)
        table, idle = self.tables.pop(request), len(self.idle)
        for block in reversed(table):
            self.holders[block] -= 1
            if not self.holders[block]:
                self.idle[block] = None
        self.used -= self.blocks(tokens) - len(table) + len(self.idle) - idle

    def _fits(self, tokens: int, hits: list[int]) -> bool:
        held = sum(self.holders[block] > 0 for block in hits)
        return self.blocks(tokens) - held <= self.free

    def _hits(self, request: int, tokens: int) -> list[int]:
        """Return the cached blocks that a sequence of `tokens` tokens to compute begins with."""
        hits = []
        for name in self.names.of(request, 0, (tokens - 1) // self.block_tokens):
            block = self.alike[name][0] if name in self.alike else name
            if block not in self.holders:
                break
            hits.append(block)
        return hits

    def _fill(self, request: int, tokens: int) -> None:
        """Cache the full blocks of `tokens` computed tokens that aren't in the sequence's table yet."""
        table = self.tables[request]
        names = self.names.of(request, len(table), tokens // self.block_tokens)
        holders, alike = self.holders, self.alike
        blocks = [self._copy(name) if name in holders or name in alike else name for name in names]
        table += blocks
        holders.update(dict.fromkeys(blocks, 1))

    def _copy(self, name: int) -> int:
        """Return the number of one more block with a name."""
        self.copies += 1
        self.alike.setdefault(name, [name]).append(-self.copies)
        self.name_of[-self.copies] = name
        return -self.copies

    def _forget(self, block: int) -> None:
        """Let others of an evicted block's name be found."""
        name = self.name_of.pop(block, block)
        if name in self.alike:
            self.alike[name].remove(block)
            if not self.alike[name]:
                del self.alike[name]


def kv_of(total: int, block_tokens: int, prefix_tokens: int | None) -> KvBlocks:
    """Return a cache that keeps blocks for reuse if prefixes are known, and one that counts if not."""
    if prefix_tokens is None:
        return KvBlocks(total, block_tokens)
    return PrefixBlocks(total, block_tokens, names=BlockNames(block_tokens, prefix_tokens))
