"""Two lanes once more, second by second of their work and request by request, with nothing clever.

Each lane holds what it computes as a list; at every moment at which something ends or arrives, all of it is
looked at.
"""

import math
from dataclasses import dataclass, field

from hgpu.core.operating_point import EngineOptions
from hgpu.core.step import LatencyModel, StepBatch
from hgpu.latency.phases import place
from hgpu.simulator.partitioned import Partition
from hgpu.workloads.trace import Trace


@dataclass(eq=False)
class Request:
    prompt: int
    output: int
    arrival_s: float
    start_s: float = math.nan
    computed: int = 0
    blocks: int = 0
    preemptions: int = 0
    token_s: list[float] = field(default_factory=list)

    @property
    def known(self) -> int:
        return self.prompt + len(self.token_s)


class LaneReference:
    def __init__(
        self,
        latency: LatencyModel,
        partition: Partition,
        engine: EngineOptions,
        trace: Trace,
        block_tokens: int,
        ageing_tok_per_s: float | None,
    ) -> None:
        self.partition, self.engine, self.block_tokens = partition, engine, block_tokens
        self.ageing_tok_per_s = ageing_tok_per_s
        columns = (trace.input_tokens, trace.output_tokens, trace.arrivals_s)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        self.requests = [Request(*row) for row in rows]
        self.coming, self.waiting = list(self.requests), []
        self.partial: Request | None = None
        self.prompts: list[tuple[Request, int]] = []
        self.decodes: list[Request] = []  # in order of admission
        self.stepping: list[Request] = []
        self.free = latency.kv_capacity_tokens // block_tokens
        self.total = self.free
        self.now_s = self.prompt_left_s = self.decode_left_s = 0.0
        self.most_blocks = self.steps = 0

    def run(self) -> "LaneReference":
        while self.coming or self.waiting or self.partial or self.prompts or self.decodes:
            while self.coming and self.coming[0].arrival_s <= self.now_s:
                self.waiting.append(self.coming.pop(0))
            self.sort()
            if not self.stepping:
                self.begin_decodes()
            if not self.prompts:
                self.begin_prompts()
            self.most_blocks = max(self.most_blocks, self.total - self.free)
            self.pass_time()
        assert self.free == self.total
        return self

    def sort(self) -> None:
        ageing_tok_per_s = self.ageing_tok_per_s
        if ageing_tok_per_s is not None:
            self.waiting.sort(key=lambda r: place(r.known, r.arrival_s, ageing_tok_per_s))

    def pass_time(self) -> None:
        slow = self.partition.contention if self.prompts else 1.0
        spans_s = []
        if self.coming:
            spans_s.append(self.coming[0].arrival_s - self.now_s)
        if self.prompts:
            spans_s.append(self.prompt_left_s)
        if self.stepping:
            spans_s.append(self.decode_left_s * slow)
        span_s = min(spans_s)
        self.now_s += span_s
        self.prompt_left_s -= span_s
        self.decode_left_s -= span_s / slow
        if self.prompts and self.prompt_left_s == 0:
            self.end_prompts()
        if self.stepping and self.decode_left_s == 0:
            for request in self.stepping:
                request.computed += 1
                self.give_token(request)
            self.stepping = []

    def begin_decodes(self) -> None:
        going = list(self.decodes)
        for request in going:
            while request in self.decodes and not self.grow(request, 1):
                self.preempt()
        if self.decodes:
            self.stepping = list(self.decodes)
            contexts = [request.computed + 1 for request in self.stepping]
            batch = StepBatch(decode_seqs=len(contexts), decode_context_tokens=sum(contexts))
            self.decode_left_s = self.partition.decode.step_s(batch)
            self.steps += 1

    def preempt(self) -> None:
        if self.partial is not None:
            victim, self.partial = self.partial, None
        else:
            victim = self.decodes.pop()
        self.release(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.waiting.insert(0 if self.ageing_tok_per_s is None else len(self.waiting), victim)
        self.sort()

    def begin_prompts(self) -> None:
        budget = self.engine.max_num_batched_tokens
        chosen: list[tuple[Request, int]] = []
        if self.partial is not None:
            new = min(self.partial.known - self.partial.computed, budget)
            if not self.grow(self.partial, new):
                self.preempt()
                return
            chosen.append((self.partial, new))
            budget -= new
        while self.waiting and budget and len(self.decodes) + len(chosen) < self.engine.max_num_seqs:
            request = self.waiting[0]
            if math.ceil(request.known / self.block_tokens) > self.free:
                break
            self.waiting.pop(0)
            new = min(request.known, budget)
            self.grow(request, new)
            chosen.append((request, new))
            budget -= new
            if math.isnan(request.start_s):
                request.start_s = self.now_s
        if chosen:
            self.partial, self.prompts = None, chosen
            self.steps += 1
            batch = StepBatch(
                prefill_tokens=sum(new for _, new in chosen),
                prefill_seqs=len(chosen),
                prefill_pairs=sum(new * r.computed + new * (new + 1) / 2 for r, new in chosen),
                prefill_context_tokens=sum(r.computed for r, _ in chosen),
            )
            self.prompt_left_s = self.partition.prefill.step_s(batch)

    def end_prompts(self) -> None:
        for request, new in self.prompts:
            request.computed += new
            if request.computed < request.known:
                self.partial = request
            else:
                self.decodes.append(request)
                self.give_token(request)
        self.prompts = []

    def give_token(self, request: Request) -> None:
        request.token_s.append(self.now_s)
        if len(request.token_s) == request.output:
            self.decodes.remove(request)
            self.release(request)

    def grow(self, request: Request, new: int) -> bool:
        need = math.ceil((request.computed + new) / self.block_tokens) - request.blocks
        if need > self.free:
            return False
        self.free -= need
        request.blocks += need
        return True

    def release(self, request: Request) -> None:
        self.free += request.blocks
        request.blocks = 0
