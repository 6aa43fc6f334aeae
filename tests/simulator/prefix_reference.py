"""The reference scheduler once more, with prefix caching: blocks as objects in a list, named by their tokens.

Written from the description of vLLM V1's block pool: one list of free blocks, unhashed ones in front, then
cached ones from the one that was freed first; every lookup compares whole prefixes, token by token.
"""

import math
from dataclasses import dataclass, field

from simulator.prefix_tokens import own_token, prompt_tokens
from simulator.reference import Reference, Request

from hgpu.core.operating_point import EngineOptions
from hgpu.core.step import LatencyModel
from hgpu.simulator.arrivals import FixedCosts
from hgpu.workloads.trace import Trace


@dataclass(eq=False)
class Block:
    tokens: tuple[int, ...] = ()  # all tokens up to its end, once it is full
    holders: int = 0
    filled_at: int = 0


@dataclass(eq=False)
class Held:
    tokens: list[int]
    blocks: list[Block] = field(default_factory=list)
    hit: int | None = None


class PrefixReference(Reference):
    def __init__(
        self,
        latency: LatencyModel,
        engine: EngineOptions,
        trace: Trace,
        costs: FixedCosts,
        block_tokens: int,
    ) -> None:
        super().__init__(latency, engine, trace, costs, block_tokens)
        self.blocks = [Block() for _ in range(self.total)]
        self.queue = list(self.blocks)  # the next to be taken is in front
        self.fills = 0
        self.held = {
            request: Held(
                prompt_tokens(trace, number)
                + [own_token(number, request.prompt + place) for place in range(request.output)]
            )
            for number, request in enumerate(self.requests)
        }

    def room(self) -> int:
        return len(self.queue)

    def grow(self, request: Request, new: int) -> bool:
        mine = self.held[request]
        after = request.computed + new
        need = math.ceil(after / self.block_tokens) - len(mine.blocks)
        if need > len(self.queue):
            return False
        for _ in range(need):
            block = self.queue.pop(0)
            block.tokens, block.holders = (), 1
            mine.blocks.append(block)
        for place in range(after // self.block_tokens):
            if not mine.blocks[place].tokens:
                self.fills += 1
                mine.blocks[place].filled_at = self.fills
                mine.blocks[place].tokens = tuple(mine.tokens[: (place + 1) * self.block_tokens])
        return True

    def release(self, request: Request) -> None:
        mine = self.held[request]
        for block in reversed(mine.blocks):
            block.holders -= 1
            if not block.holders:
                self.queue.insert(len(self.queue) if block.tokens else 0, block)
        mine.blocks = []

    def admit(self, request: Request) -> bool:
        mine = self.held[request]
        hits: list[Block] = []
        while (len(hits) + 1) * self.block_tokens < request.known:
            wanted = tuple(mine.tokens[: (len(hits) + 1) * self.block_tokens])
            same = [block for block in self.blocks if block.tokens == wanted]
            if not same:
                break
            hits.append(min(same, key=lambda block: block.filled_at))
        idle = [block for block in hits if not block.holders]
        need = math.ceil(request.known / self.block_tokens) - len(hits) + len(idle)
        if need > len(self.queue):
            return False
        for block in hits:
            block.holders += 1
        self.queue = [block for block in self.queue if not block.holders]
        mine.blocks = hits
        request.computed = len(hits) * self.block_tokens
        if mine.hit is None:
            mine.hit = request.computed
        return True
