"""Request lengths and rates."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Bucket:
    """A cell of the length histogram: input in (`input_low`, `input_high`] tokens, output likewise.

    `input_tokens` and `output_tokens` are the means of the requests inside, and `share` is
    their part of all requests (the shares of a workload sum to 1). `max_total_tokens` is the
    longest member's input and output together.
    """

    input_low: int
    input_high: int
    output_low: int
    output_high: int
    input_tokens: float
    output_tokens: float
    share: float
    max_total_tokens: int = 0

    @property
    def name(self) -> str:
        """Upper edges of the cell, as `in≤500 out≤100`."""
        return f"in≤{self.input_high} out≤{self.output_high}"


@dataclass(frozen=True, slots=True)
class Workload:
    """A length histogram and a request rate.

    `outside_share` is the part of the source's requests that fits no bucket; it is refused by
    the planner unless the user says otherwise, never dropped in silence.
    """

    name: str
    rate_rps: float
    buckets: tuple[Bucket, ...]
    requests: int
    source: str
    outside_share: float = 0.0

    def at_rate(self, rate_rps: float) -> "Workload":
        """Return the same lengths at another rate."""
        return replace(self, rate_rps=rate_rps)

    @property
    def mean_input_tokens(self) -> float:
        """Mean prompt length over all requests in buckets."""
        return sum(b.share * b.input_tokens for b in self.buckets)

    @property
    def mean_output_tokens(self) -> float:
        """Mean output length over all requests in buckets."""
        return sum(b.share * b.output_tokens for b in self.buckets)
