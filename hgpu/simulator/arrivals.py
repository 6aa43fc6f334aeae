"""When requests arrive: as a trace says, or each as another one ends."""

from dataclasses import dataclass, field
from math import inf

import numpy as np

from hgpu.core.errors import InputError
from hgpu.workloads.trace import Ints, PrefixBlocks, Trace


@dataclass(frozen=True, slots=True)
class FixedCosts:
    """Seconds that a client sees beside the steps of the engine.

    - `request_s`: from sending a request until the scheduler has it (HTTP, tokenizer);
    - `step_s`: host time added to every step;
    - `token_s`: from the end of a step until the client has its token (detokenizer, HTTP).

    All are 0 by default: step times that the `vllm` profiler measured hold their host work.
    They differ by engine version and machine, so state them or fit them.
    """

    request_s: float = 0.0
    step_s: float = 0.0
    token_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would let time run backwards."""
        for name in self.__slots__:
            value = getattr(self, name)
            if not 0 <= value < inf:
                raise InputError(f"bad fixed cost {name}={value}", "it must be 0 s or more, and finite")


@dataclass(frozen=True, slots=True, eq=False)
class ClosedLoop:
    """`concurrency` requests in flight from the first moment; as one ends, the next is sent.

    Requests are sent in the order of the arrays, which hold their lengths in tokens.
    """

    concurrency: int
    input_tokens: Ints
    output_tokens: Ints

    def __post_init__(self) -> None:
        """Refuse a loop that can't turn."""
        if self.concurrency < 1:
            raise InputError(f"bad concurrency {self.concurrency}", "nothing would be sent", "give 1 or more")
        if len(self.input_tokens) != len(self.output_tokens) or not len(self.input_tokens):
            raise InputError(
                "a closed loop needs an input and an output length for each of one or more requests",
                f"it has {len(self.input_tokens)} and {len(self.output_tokens)}",
            )

    @property
    def requests(self) -> int:
        """Number of requests."""
        return len(self.input_tokens)


Arrivals = Trace | ClosedLoop


@dataclass(slots=True)
class Feed:
    """Hands requests, numbered in the order of arrival, to the scheduler.

    `arrival_s` holds the arrivals that are known: all of a trace; of a closed loop those whose
    turn has come.
    """

    arrival_s: list[float]
    requests: int
    request_s: float
    closed: bool
    taken: int = field(default=0, init=False)

    @property
    def next_s(self) -> float:
        """When the next request reaches the scheduler; infinite where none is on its way."""
        return self.arrival_s[self.taken] + self.request_s if self.taken < len(self.arrival_s) else inf

    def take(self, now_s: float) -> range:
        """Return the requests that have reached the scheduler since the last call."""
        first = self.taken
        while self.next_s <= now_s:
            self.taken += 1
        return range(first, self.taken)

    def ended(self, now_s: float) -> None:
        """Note that a client has its last token: in a closed loop the next request is sent."""
        if self.closed and len(self.arrival_s) < self.requests:
            self.arrival_s.append(now_s)


def feed_of(arrivals: Arrivals, costs: FixedCosts) -> Feed:
    """Return the requests of a trace or of a closed loop as the scheduler will get them."""
    if isinstance(arrivals, Trace):
        return Feed(arrivals.arrivals_s.tolist(), arrivals.requests, costs.request_s, closed=False)
    at_once = min(arrivals.concurrency, arrivals.requests)
    return Feed([0.0] * at_once, arrivals.requests, costs.request_s, closed=True)


def lengths_of(arrivals: Arrivals) -> tuple[Ints, Ints]:
    """Return the input and output lengths in tokens, by number of the request."""
    return np.asarray(arrivals.input_tokens, np.int64), np.asarray(arrivals.output_tokens, np.int64)


def prefixes_of(arrivals: Arrivals, block_tokens: int) -> tuple[PrefixBlocks, int]:
    """Return the block hashes of each request and the tokens of such a block.

    Where nobody knows of shared prefixes there are no hashes, and blocks are the engine's.
    """
    if isinstance(arrivals, Trace) and arrivals.prefix_blocks is not None:
        return arrivals.prefix_blocks, arrivals.block_tokens or block_tokens
    return (), block_tokens
