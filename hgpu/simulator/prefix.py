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

from hgpu.simulator.block_names import BlockNames
from hgpu.simulator.kv import KvBlocks


@dataclass(slots=True, eq=False)
class Block:
    """A cached block, and how many sequences hold it."""

    name: int
    holders: int = 1


@dataclass(slots=True, kw_only=True)
class PrefixBlocks(KvBlocks):
    """`used` counts blocks that are held: one that many hold counts once, idle ones don't.

    `tables` holds the full blocks of each sequence that runs, those that it decoded left out.
    """

    names: BlockNames
    tables: dict[int, list[Block]] = field(default_factory=dict)
    cached: dict[int, list[Block]] = field(default_factory=dict)
    idle: OrderedDict[Block, None] = field(default_factory=OrderedDict)

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
            alike = self.cached[block.name]
            alike.remove(block)
            if not alike:
                del self.cached[block.name]

    def fits(self, request: int, tokens: int) -> bool:
        """Tell whether free blocks last for those that nobody holds yet; idle hits are free ones too."""
        if self.blocks(tokens) <= self.free:
            return True
        held = sum(block.holders > 0 for block in self._hits(request, tokens))
        return self.blocks(tokens) - held <= self.free

    def admit(self, request: int, tokens: int) -> int:
        """Let a sequence hold what is cached of it; return the tokens of that."""
        hits = self._hits(request, tokens)
        for block in hits:
            if not block.holders:
                del self.idle[block]
                self.used += 1
            block.holders += 1
        self.tables[request] = hits
        return len(hits) * self.block_tokens

    def extend(self, request: int, before: int, after: int) -> bool:
        """Take blocks for the tokens of a chunk, and cache those that it fills."""
        if not KvBlocks.extend(self, request, before, after):
            return False
        self._fill(request, after)
        return True

    def give_back(self, request: int, tokens: int) -> None:
        """Release what a sequence of `tokens` computed tokens holds, the tail first."""
        self._fill(request, tokens)
        table = self.tables.pop(request)
        self.used -= self.blocks(tokens) - len(table)
        for block in reversed(table):
            block.holders -= 1
            if not block.holders:
                self.idle[block] = None
                self.used -= 1

    def _hits(self, request: int, tokens: int) -> list[Block]:
        """Return the cached blocks that a sequence of `tokens` tokens to compute begins with."""
        hits = []
        for name in self.names.of(request, 0, (tokens - 1) // self.block_tokens):
            alike = self.cached.get(name)
            if alike is None:
                break
            hits.append(alike[0])
        return hits

    def _fill(self, request: int, tokens: int) -> None:
        """Cache the full blocks of `tokens` computed tokens that aren't in the sequence's table yet."""
        table = self.tables[request]
        for name in self.names.of(request, len(table), tokens // self.block_tokens):
            block = Block(name)
            table.append(block)
            self.cached.setdefault(name, []).append(block)


def kv_of(total: int, block_tokens: int, prefix_tokens: int | None) -> KvBlocks:
    """Return a cache that keeps blocks for reuse if prefixes are known, and one that counts if not."""
    if prefix_tokens is None:
        return KvBlocks(total, block_tokens)
    return PrefixBlocks(total, block_tokens, names=BlockNames(block_tokens, prefix_tokens))
