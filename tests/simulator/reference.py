"""The same scheduler once more, step by step and request by request, with nothing clever.

Written from the description of vLLM V1's scheduler, not from `hgpu.simulator`: one list of running
requests, each with its own count of tokens and blocks; every step looks at all of them.
"""

import math
from dataclasses import dataclass, field

from hgpu.core.operating_point import EngineOptions
from hgpu.core.step import LatencyModel, StepBatch
from hgpu.simulator.arrivals import Arrivals, ClosedLoop, FixedCosts


@dataclass(eq=False)
class Request:
    prompt: int
    output: int
    arrival_s: float = math.nan
    start_s: float = math.nan
    computed: int = 0
    yielded: int = 0
    decodes: bool = False
    blocks: int = 0
    preemptions: int = 0
    token_s: list[float] = field(default_factory=list)

    @property
    def known(self) -> int:
        return self.prompt + self.yielded


class Reference:
    def __init__(
        self,
        latency: LatencyModel,
        engine: EngineOptions,
        arrivals: Arrivals,
        costs: FixedCosts,
        block_tokens: int,
    ) -> None:
        self.latency, self.engine, self.costs, self.block_tokens = latency, engine, costs, block_tokens
        lengths = zip(arrivals.input_tokens.tolist(), arrivals.output_tokens.tolist(), strict=True)
        self.requests = [Request(prompt, output) for prompt, output in lengths]
        self.unsent = list(self.requests)
        self.on_the_way: list[Request] = []
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.total = self.free = latency.kv_capacity_tokens // block_tokens
        self.now_s = self.busy_s = 0.0
        self.steps = self.most_blocks = self.idle_with_work = 0
        if isinstance(arrivals, ClosedLoop):
            for _ in range(min(arrivals.concurrency, len(self.requests))):
                self.send(0.0)
        else:
            for arrival_s in arrivals.arrivals_s.tolist():
                self.send(arrival_s)

    def send(self, now_s: float) -> None:
        request = self.unsent.pop(0)
        request.arrival_s = now_s
        self.on_the_way.append(request)

    def run(self) -> "Reference":
        while self.on_the_way or self.waiting or self.running:
            while self.on_the_way and self.reaches_s() <= self.now_s:
                self.arrive(self.on_the_way.pop(0))
            if self.waiting or self.running:
                self.step()
            else:
                self.now_s = self.reaches_s()
        assert self.room() == self.total
        return self

    def reaches_s(self) -> float:
        return self.on_the_way[0].arrival_s + self.costs.request_s

    def arrive(self, request: Request) -> None:
        self.waiting.append(request)

    def tokens_to_give(self) -> int:
        return self.engine.max_num_batched_tokens

    def step(self) -> None:
        self.tokens = self.tokens_to_give()
        scheduled, preempted = self.schedule_running()
        if not preempted:
            self.schedule_waiting(scheduled)
        self.idle_with_work += not scheduled
        self.most_blocks = max(self.most_blocks, self.total - self.room())
        began_s = self.now_s
        self.now_s += self.latency.step.step_s(batch_of(scheduled)) + self.costs.step_s
        self.busy_s += self.now_s - began_s
        self.steps += 1
        for request, new in scheduled.items():
            self.compute(request, new)
        for request in [r for r in scheduled if r.yielded == r.output]:
            self.running.remove(request)
            self.release(request)
            if self.unsent:
                self.send(self.now_s + self.costs.token_s)

    def schedule_running(self) -> tuple[dict[Request, int], bool]:
        scheduled: dict[Request, int] = {}
        preempted = False
        budget, index = self.tokens, 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            new = min(request.known - request.computed, budget)
            while request in self.running and not self.grow(request, new):
                self.preempt(self.running.pop())
                preempted = True
            if request not in self.running:
                break
            scheduled[request] = new
            budget -= new
            index += 1
        return scheduled, preempted

    def preempt(self, victim: Request) -> None:
        self.release(victim)
        victim.computed = 0
        victim.decodes = False
        victim.preemptions += 1
        self.requeue(victim)

    def requeue(self, victim: Request) -> None:
        self.waiting.insert(0, victim)

    def schedule_waiting(self, scheduled: dict[Request, int]) -> None:
        budget = self.tokens - sum(scheduled.values())
        while self.waiting and budget > 0 and len(self.running) < self.engine.max_num_seqs:
            request = self.waiting[0]
            if not self.admit(request):
                break
            self.running.append(self.waiting.pop(0))
            scheduled[request] = min(request.known - request.computed, budget)
            self.grow(request, scheduled[request])
            budget -= scheduled[request]
            if math.isnan(request.start_s):
                request.start_s = self.now_s

    def room(self) -> int:
        """Count the blocks that nobody holds."""
        return self.free

    def admit(self, request: Request) -> bool:
        """Tell whether the whole request fits."""
        return math.ceil(request.known / self.block_tokens) <= self.free

    def grow(self, request: Request, new: int) -> bool:
        """Take blocks for new tokens, if there are enough."""
        need = math.ceil((request.computed + new) / self.block_tokens) - request.blocks
        if need > self.free:
            return False
        self.free -= need
        request.blocks += need
        return True

    def release(self, request: Request) -> None:
        self.free += request.blocks
        request.blocks = 0

    def compute(self, request: Request, new: int) -> None:
        request.computed += new
        request.decodes = request.computed == request.known
        if request.decodes:
            request.yielded += 1
            request.token_s.append(self.now_s + self.costs.token_s)


def batch_of(scheduled: dict[Request, int]) -> StepBatch:
    prompts = [(new, r.computed) for r, new in scheduled.items() if not r.decodes]
    contexts = [r.computed + 1 for r in scheduled if r.decodes]
    return StepBatch(
        prefill_tokens=sum(new for new, _ in prompts),
        prefill_seqs=len(prompts),
        prefill_pairs=sum(new * done + new * (new + 1) / 2 for new, done in prompts),
        prefill_context_tokens=sum(done for _, done in prompts),
        decode_seqs=len(contexts),
        decode_context_tokens=sum(contexts),
    )
