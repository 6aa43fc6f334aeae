"""What simulated requests met, and what a simulated engine did."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from hgpu.workloads.trace import Floats, Ints


class Measure(StrEnum):
    """What a client measures of a request, in seconds."""

    TTFT = "ttft_s"
    TPOT = "tpot_s"
    E2E = "e2e_s"
    QUEUE = "queue_s"


@dataclass(frozen=True, slots=True, eq=False)
class RequestTimes:
    """Times of requests. The arrays have an entry a request, by number.

    - `arrival_s`: when the client sent it; the first one of a run is at 0;
    - `start_s`: start of the step that computed its first prompt token;
    - `first_token_s`, `end_s`: when the client had its first and its last token.
    """

    arrival_s: Floats
    start_s: Floats
    first_token_s: Floats
    end_s: Floats
    output_tokens: Ints

    @property
    def ttft_s(self) -> Floats:
        """Time to the first token of each request."""
        return self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> Floats:
        """(end − first token)/(output tokens − 1) of the requests with two output tokens or more."""
        more = self.output_tokens > 1
        return np.asarray((self.end_s - self.first_token_s)[more] / (self.output_tokens[more] - 1))

    @property
    def e2e_s(self) -> Floats:
        """Time to the last token of each request."""
        return self.end_s - self.arrival_s

    @property
    def queue_s(self) -> Floats:
        """Time of each request until its first prompt token was being computed."""
        return self.start_s - self.arrival_s

    @property
    def makespan_s(self) -> float:
        """Seconds from the first arrival to the last token."""
        return float(self.end_s.max() - self.arrival_s.min())

    @property
    def output_tok_per_s(self) -> float:
        """Output tokens of all requests over the makespan."""
        return float(self.output_tokens.sum()) / self.makespan_s

    def of(self, which: npt.NDArray[np.bool_]) -> "RequestTimes":
        """Return the times of some of the requests."""
        names = ("arrival_s", "start_s", "first_token_s", "end_s", "output_tokens")
        return RequestTimes(*(getattr(self, name)[which] for name in names))

    def quantiles(self, measure: Measure, percentiles: Sequence[float] = (50, 90, 95, 99)) -> Floats:
        """Return percentiles of a measure in seconds; NaN where no request has it (TPOT of one token)."""
        values = getattr(self, measure)
        if not len(values):
            return np.full(len(percentiles), np.nan)
        return np.asarray(np.percentile(values, percentiles), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class EngineRun(RequestTimes):
    """Times of every request of one engine, and of the engine.

    - `preemptions`: how often a request's cache was taken away and its tokens computed again;
    - `hit_tokens`: prompt tokens of a request that its first admission found in the cache;
    - `steps`, `busy_s`: steps of the engine, and their seconds;
    - `seq_steps`: sequences of each step, summed over the steps;
    - `max_kv_tokens`: most tokens that the blocks in use had room for, `kv_capacity_tokens` at most.
    """

    preemptions: Ints
    hit_tokens: Ints
    steps: int
    busy_s: float
    seq_steps: int
    max_kv_tokens: int
    kv_capacity_tokens: int

    @property
    def mean_batch(self) -> float:
        """Mean sequences of a step."""
        return self.seq_steps / self.steps

    @property
    def utilization(self) -> float:
        """Part of the run that the engine was computing."""
        return self.busy_s / self.makespan_s
