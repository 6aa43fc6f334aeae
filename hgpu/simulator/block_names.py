"""Names of KV blocks: two full blocks have one name when they hold the same tokens after the same tokens.

vLLM names a full block by a hash of its tokens and of its parent's hash. Here nobody knows tokens. A trace
tells the hashes of leading prompt blocks, often larger ones (512 tokens in a Mooncake trace, 16 in an
engine). The chain of hashes up to trace block d, of B tokens each, names the engine's blocks of b tokens
that end in it: those from ⌊dB/b⌋ to ⌊(d+1)B/b⌋ − 1. All other tokens, those of outputs too, are taken
to be a request's own.

Names are whole numbers. A request has few runs of them, so runs are kept, not numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

Chain = tuple[int, int]  # (number of the chain before, hash)


@dataclass(slots=True)
class BlockNames:
    """Names of the full blocks of sequences that were given in order, `block_tokens` tokens in each.

    `prefix_tokens` are the tokens of a block that hashes are of.
    """

    block_tokens: int
    prefix_tokens: int
    runs: list[tuple[range, ...]] = field(default_factory=list)
    chains: dict[Chain, tuple[int, range]] = field(default_factory=dict)
    named: int = 0

    def add(self, hashes: Sequence[int], input_tokens: int, output_tokens: int) -> None:
        """Name the blocks of the next sequence; hashes beyond its prompt's last full block say nothing."""
        left = min(len(hashes) * self.prefix_tokens, input_tokens) // self.block_tokens
        own = (input_tokens + output_tokens) // self.block_tokens - left
        runs, parent = [], 0
        for depth, value in enumerate(hashes):
            if not left:
                break
            parent, names = self._chain(parent, value, depth)
            runs.append(names[:left])
            left -= len(runs[-1])
        self.runs.append((*runs, self._new(own)))

    def of(self, sequence: int, first: int, last: int) -> Iterator[int]:
        """Return the names of a sequence's full blocks from `first` up to `last`, which is left out."""
        return islice(chain.from_iterable(self.runs[sequence]), first, last)

    def _chain(self, parent: int, value: int, depth: int) -> tuple[int, range]:
        """Return the number of a chain of hashes, and the names of the blocks that end in its last one."""
        found = self.chains.get((parent, value))
        if found is None:
            tokens, size = depth * self.prefix_tokens, self.block_tokens
            names = self._new((tokens + self.prefix_tokens) // size - tokens // size)
            found = self.chains[parent, value] = (len(self.chains) + 1, names)
        return found

    def _new(self, count: int) -> range:
        self.named += count
        return range(self.named - count, self.named)
