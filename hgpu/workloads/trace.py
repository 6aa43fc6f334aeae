"""A trace: when requests arrive and how long they are."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hgpu.core.errors import InputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PrefixBlocks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests in order of arrival.

    `arrivals_s` starts at 0 and never falls. `prefix_blocks` holds one tuple of block hashes a
    request, each block of `block_tokens` prompt tokens: equal leading hashes mean a shared prefix.
    A length of 0 is kept as the source has it. Build one with `ordered_trace`, which sorts.
    """

    name: str
    arrivals_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    source: str
    prefix_blocks: PrefixBlocks | None = None
    block_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse arrays that don't belong together, and make them read-only."""
        columns = {len(self.arrivals_s), len(self.input_tokens), len(self.output_tokens)}
        if self.prefix_blocks is not None:
            columns.add(len(self.prefix_blocks))
        if columns != {self.requests} or not self.requests:
            raise InputError(
                f"trace '{self.name}' is malformed",
                f"its columns have {sorted(columns)} entries",
                "give one arrival, input length and output length for each of one or more requests",
            )
        if self.arrivals_s[0] != 0 or not np.all(np.diff(self.arrivals_s) >= 0):
            raise InputError(
                f"trace '{self.name}' is malformed",
                "its arrivals don't start at 0 s and rise",
                "build it with ordered_trace, which sorts and shifts",
            )
        for column in (self.arrivals_s, self.input_tokens, self.output_tokens):
            column.setflags(write=False)

    @property
    def requests(self) -> int:
        """Number of requests."""
        return len(self.arrivals_s)

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last arrival."""
        return float(self.arrivals_s[-1])

    @property
    def rate_rps(self) -> float:
        """Mean arrival rate in requests/s: n - 1 intervals over the duration.

        n requests span n - 1 intervals, so n/duration would be biased high. Raises InputError
        when no time passes, because then there is no rate.
        """
        if not self.duration_s:
            raise InputError(
                f"trace '{self.name}' has no rate",
                f"all of its {self.requests} request(s) arrive at the same time",
                "give a rate in requests per second",
            )
        return (self.requests - 1) / self.duration_s


def ordered_trace(
    name: str,
    times_s: Floats,
    input_tokens: Ints,
    output_tokens: Ints,
    source: str,
    prefix_blocks: PrefixBlocks | None = None,
    block_tokens: int | None = None,
) -> Trace:
    """Return a trace sorted by time (ties keep their order) whose first arrival is at 0 s."""
    order = np.argsort(times_s, kind="stable")
    arrivals_s = times_s[order]
    return Trace(
        name=name,
        arrivals_s=arrivals_s - arrivals_s[:1],
        input_tokens=input_tokens[order],
        output_tokens=output_tokens[order],
        source=source,
        prefix_blocks=None if prefix_blocks is None else tuple(prefix_blocks[i] for i in order),
        block_tokens=block_tokens,
    )
