"""Figures as public benchmarks make them: the load generator is modelled, not only the engine.

Such a benchmark keeps C requests in flight, C from the very first moment, some 10·C in all. Lengths are
uniform between 80 and 100 % of the nominal ones, and TTFT is the mean over all requests. So
the first C prompts queue behind one another and dominate the mean TTFT where C is large; and with
fixed lengths whole cohorts would end, and prefill, in step.
"""

import math
from dataclasses import dataclass

import numpy as np

from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel
from hgpu.simulator.arrivals import ClosedLoop, FixedCosts
from hgpu.simulator.engine import simulate
from hgpu.workloads.trace import Ints

# HTTP, tokenizer and scheduling of a request, assumed for estimates. Public runs of a 70B FP8 model on
# 8 GPUs, where the prefill itself is short, have TTFTs 20 to 40 ms above the simulated steps.
ASSUMED_REQUEST_S = 0.020


@dataclass(frozen=True, slots=True)
class Question:
    """Nominal lengths in tokens, and requests in flight."""

    input_tokens: int
    output_tokens: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over all requests of a closed loop; `tpot_s` is None where outputs have one token."""

    ttft_s: float
    tpot_s: float | None
    output_tok_per_s: float


@dataclass(frozen=True, slots=True)
class Harness:
    """How the load is made: requests in all a slot, and how far below the nominal lengths reach.

    `request_s` and `step_s` are the fixed costs of FixedCosts; None for `request_s` takes what the
    latency model measured, or ASSUMED_REQUEST_S where it is an estimate.
    """

    requests_per_slot: int = 10
    length_spread: float = 0.2
    seed: int = 0
    request_s: float | None = None
    step_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what makes no load."""
        if self.requests_per_slot < 1 or not 0 <= self.length_spread < 1 or self.seed < 0:
            raise InputError(
                f"bad load: {self.requests_per_slot} requests a slot, length spread {self.length_spread}, "
                f"seed {self.seed}",
                "there must be 1 or more requests a slot, a spread from 0 to below 1, and a seed from 0 up",
            )

    def loop(self, question: Question) -> ClosedLoop:
        """Return the closed loop of a question; the same seed gives the same lengths."""
        requests = self.requests_per_slot * question.concurrency
        return ClosedLoop(
            question.concurrency,
            self._lengths(question.input_tokens, requests, 0),
            self._lengths(question.output_tokens, requests, 1),
        )

    def figures(self, latency: LatencyModel, engine: EngineOptions, question: Question) -> Figures:
        """Return what a client would measure. Raises InputError where a request can never be served."""
        request_s = self._request_s(latency)
        run = simulate(latency, engine, self.loop(question), FixedCosts(request_s, self.step_s))
        tpot_s = run.tpot_s
        return Figures(
            float(run.ttft_s.mean()), float(tpot_s.mean()) if len(tpot_s) else None, run.output_tok_per_s
        )

    def _request_s(self, latency: LatencyModel) -> float:
        if self.request_s is not None:
            return self.request_s
        return ASSUMED_REQUEST_S if latency.provenance is Provenance.ESTIMATED else latency.request_s

    def _lengths(self, nominal: int, requests: int, stream: int) -> Ints:
        low = max(1, math.floor(nominal * (1 - self.length_spread)))
        return np.random.default_rng([self.seed, stream]).integers(low, nominal, requests, endpoint=True)
