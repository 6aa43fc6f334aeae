"""The reference scheduler once more, under the phase policy: every request is looked at before every step.

The policy's own functions decide, as they do inside vLLM; what is written anew is who is asked when.
"""

from math import inf

from simulator.reference import Reference, Request, batch_of

from hgpu.core.operating_point import EngineOptions
from hgpu.core.phases import PhaseOptions
from hgpu.core.step import LatencyModel
from hgpu.latency.phases import Pending, counted_from_s, place, prompt_tokens, slack_s
from hgpu.simulator.arrivals import Arrivals, FixedCosts


class PhaseReference(Reference):
    def __init__(
        self,
        latency: LatencyModel,
        engine: EngineOptions,
        arrivals: Arrivals,
        costs: FixedCosts,
        block_tokens: int,
        phases: PhaseOptions,
    ) -> None:
        self.phases = phases
        self.counted_from_s: dict[Request, float] = {}
        super().__init__(latency, engine, arrivals, costs, block_tokens)

    def arrive(self, request: Request) -> None:
        super().arrive(request)
        self.sort()

    def requeue(self, victim: Request) -> None:
        if self.phases.ageing_tok_per_s is None:
            super().requeue(victim)
        else:
            self.waiting.append(victim)
            self.sort()

    def sort(self) -> None:
        ageing_tok_per_s = self.phases.ageing_tok_per_s
        if ageing_tok_per_s is not None:
            self.waiting.sort(key=lambda r: place(r.known, r.arrival_s, ageing_tok_per_s))

    def tokens_to_give(self) -> int:
        most = super().tokens_to_give()
        tpot_s = self.phases.tpot_s
        if tpot_s is None:
            return most
        decodes = [request for request in self.running if request.decodes]
        least_s = inf
        for request in decodes:
            since_s = self.counted_from_s.setdefault(request, self.now_s)
            since_s = counted_from_s(tpot_s, request.yielded, since_s, self.now_s)
            self.counted_from_s[request] = since_s
            least_s = min(least_s, slack_s(tpot_s, request.yielded, self.now_s - since_s))
        first = next((r for r in self.running + self.waiting if not r.decodes), None)
        pending = None if first is None else Pending(first.computed, first.known - first.computed)
        batch = batch_of(dict.fromkeys(decodes, 1))
        left = most - len(decodes)
        return len(decodes) + prompt_tokens(self.latency.step, self.phases, batch, pending, left, least_s)
