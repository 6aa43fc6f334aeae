"""One engine with vLLM V1's scheduling, simulated on top of a step model.

A step has `max_num_batched_tokens` to give. Requests that run get theirs first, in the order
in which they were admitted: one token to a request that decodes, as many as are left to one
whose prompt is partly computed. Then waiting requests are admitted, first come first served, while
tokens, `max_num_seqs` and KV blocks last; the whole prompt must fit the free blocks, though only those of
its first chunk are taken (vLLM's `scheduler_reserve_full_isl`). A running request that finds no block
preempts the one that was admitted last, itself if need be: its blocks are freed, it goes to the *front* of
the waiting queue, and its prompt and its output so far are computed again. A step that preempted
admits nobody. The step that computes the last token of a prompt yields the first output token.

Two facts make this fast. At most one running request is partly prefilled, and it was admitted last:
it took all that was left of a step. And as vLLM wants max_num_batched_tokens ≥ max_num_seqs,
every other running request decodes a token in every step. So between two events (an arrival that can
be admitted, a completion, no free block) steps differ by their context alone, and many are taken at once.
Times are summed in the order of the steps: skipping changes no bit of the result.

With `PhaseOptions`, the policy that vLLM runs as a plugin (`hgpu.latency.phases`) decides which prompt is
admitted next, and how many prompt tokens a step may hold beside those that decode.

`simulate` plays all requests of a trace or of a closed loop. A driver that decides as time passes who
gets a request (a fleet) holds an `Engine`, advances it to the moment, looks, and gives.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from math import ceil, inf, isnan, nan
from typing import Any

import numpy as np

from hgpu.core.errors import InputError
from hgpu.core.operating_point import EngineOptions
from hgpu.core.phases import PhaseOptions
from hgpu.core.step import LatencyModel, StepBatch
from hgpu.latency.phases import Pending
from hgpu.simulator.arrivals import Arrivals, Feed, FixedCosts, feed_of, lengths_of, prefixes_of
from hgpu.simulator.limits import check_lengths, check_options
from hgpu.simulator.phasing import SLIVER_S, Pace, check_phases, pace_of, queue_of
from hgpu.simulator.prefix import kv_of
from hgpu.simulator.result import EngineRun

BLOCK_TOKENS = 16  # vLLM's default block_size on CUDA devices
FEW_STEPS = 10  # up to here, a loop is faster than arrays


def simulate(
    latency: LatencyModel,
    engine: EngineOptions,
    arrivals: Arrivals,
    costs: FixedCosts | None = None,
    block_tokens: int = BLOCK_TOKENS,
    prefix_caching: bool = False,
    phases: PhaseOptions | None = None,
) -> EngineRun:
    """Return what one engine makes of the requests of a trace or of a closed loop.

    `costs` are those that the latency model knows where none are given. Prefix blocks of a trace are
    looked at with `prefix_caching` only; without it every prompt is computed in full. Without `phases`
    prompts are as in vLLM: first come first served, as large as fit a step. Raises InputError
    for options that vLLM refuses, and for requests that can never be served, naming how many.
    """
    inputs, outputs = lengths_of(arrivals)
    costs = costs or FixedCosts(request_s=latency.request_s)
    prefixes, prefix_tokens = prefixes_of(arrivals, block_tokens) if prefix_caching else ((), None)
    alone = Engine(latency, engine, costs, block_tokens, feed_of(arrivals, costs), prefix_tokens, phases)
    check_lengths(inputs, outputs, engine, alone.kv.total, block_tokens)
    alone.expect(inputs.tolist(), outputs.tolist(), prefixes)
    alone.advance(inf)
    return alone.run()


def batch_of(chunks: Sequence[tuple[int, int, int]], seqs: int = 0, context: int = 0) -> StepBatch:
    """Return the step of (request, tokens computed before, tokens computed now) and of `seqs` decodes."""
    tokens = pairs = computed = 0
    for _, done, new in chunks:
        tokens += new
        pairs += new * done + new * (new + 1) // 2
        computed += done
    return StepBatch(
        prefill_tokens=tokens,
        prefill_seqs=len(chunks),
        prefill_pairs=pairs,
        prefill_context_tokens=computed,
        decode_seqs=seqs,
        decode_context_tokens=context,
    )


class Engine:
    """The state of an engine between two steps.

    A request that decodes has an `offset`: its computed tokens less `done_steps`, which stays the same
    from step to step. `decoding` maps requests to the step in which they end, in running order.
    Requests are numbered in the order in which they were given. With `prefix_tokens`, the tokens of
    a block that the prefixes of requests are given in, computed blocks are kept for prefix reuse.
    """

    def __init__(
        self,
        latency: LatencyModel,
        engine: EngineOptions,
        costs: FixedCosts | None = None,
        block_tokens: int = BLOCK_TOKENS,
        feed: Feed | None = None,
        prefix_tokens: int | None = None,
        phases: PhaseOptions | None = None,
    ) -> None:
        check_options(engine, block_tokens)
        check_phases(phases)
        self.step_s = latency.step.step_s
        self.engine, self.costs = engine, costs or FixedCosts(request_s=latency.request_s)
        self.kv = kv_of(latency.kv_capacity_tokens // block_tokens, block_tokens, prefix_tokens)
        self.feed = feed or Feed([], 0, self.costs.request_s, closed=False)
        self.now_s = self.busy_s = self.until_s = 0.0
        self.done_steps = self.seq_steps = self.offsets = self.ended = self.ended_before = 0
        self.decoding: dict[int, int] = {}
        self.ends: list[tuple[int, int]] = []  # heap of (step, request); an entry may be out of date
        self.partial: int | None = None
        self.outputs: list[int] = []
        self.to_prefill: list[int] = []  # tokens to compute before the next one is yielded
        self.waiting: deque[int] = queue_of(phases, self.to_prefill, self.feed.arrival_s)
        self.pace = pace_of(phases, latency.step)
        self.fcfs = phases is None or phases.ageing_tok_per_s is None
        self.to_yield: list[int] = []
        self.computed: list[int] = []  # of the partial request
        self.offset: list[int] = []
        self.hit_tokens: list[int] = []
        self.start_s: list[float] = []
        self.first_s: list[float] = []
        self.end_s: list[float] = []
        self.preemptions: list[int] = []

    def give(
        self, arrival_s: float, input_tokens: int, output_tokens: int, prefix: Sequence[int] = ()
    ) -> None:
        """Hand over a request that a client sends now, at the time that was advanced to, or later.

        `prefix` holds the hashes of its leading prompt blocks. The request must be one that the engine can
        serve (`servable`), and no earlier than the one before it.
        """
        known_s = self.feed.arrival_s
        if arrival_s < self.until_s or (known_s and arrival_s < known_s[-1]):
            raise InputError(f"a request can't arrive at {arrival_s} s", "the engine is past that moment")
        self.expect((input_tokens,), (output_tokens,), (prefix,))
        known_s.append(arrival_s)

    def expect(
        self, inputs: Sequence[int], outputs: Sequence[int], prefixes: Sequence[Sequence[int]] = ()
    ) -> None:
        """Note the lengths of requests that the feed will hand over, and their prefixes, if any."""
        self.kv.expect(inputs, outputs, prefixes)
        self.to_prefill.extend(inputs)
        self.outputs.extend(outputs)
        self.to_yield.extend(outputs)
        for counts in (self.computed, self.offset, self.hit_tokens, self.preemptions):
            counts.extend([0] * len(outputs))
        for times_s in (self.start_s, self.first_s, self.end_s):
            times_s.extend([nan] * len(outputs))

    def in_flight(self, now_s: float) -> int:
        """Return the requests given and not ended by `now_s`, the time that was advanced to."""
        return len(self.outputs) - (self.ended if self.now_s <= now_s else self.ended_before)

    def advance(self, until_s: float) -> None:
        """Take every step that begins before `until_s`; the last one may end after it."""
        self.until_s = until_s
        while self.now_s < until_s:
            if self.feed.next_s <= self.now_s:
                self.waiting.extend(self.feed.take(self.now_s))
            if self.decoding and self.partial is None and self._nobody_admissible():
                if not self._decode_until_event(until_s):
                    self._one_step()
            elif self.decoding or self.partial is not None or self.waiting:
                self._one_step()
            elif self.feed.next_s < until_s:
                self.now_s = self.feed.next_s
            else:
                return

    def _nobody_admissible(self) -> bool:
        """Tell whether the next step would admit nobody, as would those after it until one ends."""
        return (
            not self.waiting
            or len(self.decoding) >= self.engine.max_num_seqs
            or not self.kv.fits(self.waiting[0], self.to_prefill[self.waiting[0]])
        )

    def _decode_until_event(self, until_s: float) -> bool:
        """Take the decode steps until something else happens; False where there is no block for one."""
        while self.decoding.get(self.ends[0][1]) != self.ends[0][0]:
            heappop(self.ends)
        most = self.kv.steps_that_fit(self.done_steps + 1, self.ends[0][0] - self.done_steps)
        if not most:
            return False
        if self.pace is not None and not self._keeps_pace(self.pace, most):
            most = 1
        blocked = self.waiting and self.fcfs  # whoever comes is behind those who wait
        steps = self._pass_time(most, until_s if blocked else min(until_s, self.feed.next_s))
        self.kv.take(self.kv.due_over(self.done_steps + 1, steps))
        self.kv.note_use()
        self.done_steps += steps
        self.seq_steps += steps * len(self.decoding)
        self._end_decodes()
        return True

    def _pass_time(self, most: int, until_s: float) -> int:
        """Pass the time of decode steps, `most` at most, that start before `until_s`; return how many."""
        seqs = len(self.decoding)
        context = self.offsets + seqs * (self.done_steps + 1)
        began_s, host_s = self.now_s, self.costs.step_s
        if most > FEW_STEPS and until_s < inf:
            first_s = self.step_s(StepBatch(decode_seqs=seqs, decode_context_tokens=context)) + host_s
            if first_s > 0:  # later steps take no less
                most = max(1, min(most, ceil((until_s - began_s) / first_s) + 1))
        if most > FEW_STEPS:
            contexts: Any = np.arange(context, context + most * seqs, seqs)
            ends_s = np.empty(most + 1)
            ends_s[0] = began_s
            ends_s[1:] = self.step_s(StepBatch(decode_seqs=seqs, decode_context_tokens=contexts)) + host_s
            np.add.accumulate(ends_s, out=ends_s)
            steps = most if until_s == inf else max(1, min(most, int(ends_s.searchsorted(until_s))))
            self.now_s = float(ends_s[steps])
        else:
            steps = 0
            while steps < most and (not steps or self.now_s < until_s):
                batch = StepBatch(decode_seqs=seqs, decode_context_tokens=context + steps * seqs)
                self.now_s += self.step_s(batch) + host_s
                steps += 1
        self.busy_s += self.now_s - began_s
        return steps

    def _one_step(self) -> None:
        """Schedule and take one step, with prompts or preemptions."""
        step, began_s = self.done_steps + 1, self.now_s
        budget = self._prompt_budget(step)
        preempted = self._grow_decodes(step)
        seqs = len(self.decoding)
        context = self.offsets + seqs * step
        chunks = self._prefill(preempted, budget)
        self.kv.note_use()
        batch = batch_of(chunks, seqs, context)
        self.now_s += self.step_s(batch) + self.costs.step_s
        self.busy_s += self.now_s - began_s
        self.done_steps = step
        self.seq_steps += seqs + len(chunks)
        self._end_decodes()
        for request, done, new in chunks:
            self._end_chunk(request, done + new)

    def _prompt_budget(self, step: int) -> int:
        """Return the most prompt tokens of a step, should it preempt nobody."""
        limit = self.engine.max_num_batched_tokens - len(self.decoding)
        if self.pace is None:
            return limit
        allowed_s = self.pace.least_slack_s(self._yielded(), self.now_s)
        context = self.offsets + len(self.decoding) * step
        decodes = StepBatch(decode_seqs=len(self.decoding), decode_context_tokens=context)
        return self.pace.prompt_tokens(decodes, self._pending(), limit, allowed_s)

    def _pending(self) -> Pending | None:
        """Return the prompt that is next."""
        if self.partial is not None:
            done = self.computed[self.partial]
            return Pending(done, self.to_prefill[self.partial] - done)
        return Pending(0, self.to_prefill[self.waiting[0]]) if self.waiting else None

    def _yielded(self) -> Iterator[tuple[int, int]]:
        """Yield the requests that decode, with the tokens that each has."""
        for request, end in self.decoding.items():
            yield request, self.outputs[request] - end + self.done_steps

    def _keeps_pace(self, pace: Pace, steps: int) -> bool:
        """Tell whether nobody can lose its slack over so many decode steps: none is too slow for it.

        Then looking once is as good as looking before each of them.
        """
        least_s = pace.least_slack_s(self._yielded(), self.now_s)
        seqs = len(self.decoding)
        context = self.offsets + seqs * (self.done_steps + steps)
        slowest_s = self.step_s(StepBatch(decode_seqs=seqs, decode_context_tokens=context))
        return least_s > SLIVER_S and slowest_s + self.costs.step_s <= pace.tpot_s

    def _grow_decodes(self, step: int) -> bool:
        """Give each decode its place in the cache, in running order; tell whether that preempted one."""
        if self.kv.due_in(step) <= self.kv.free:
            self.kv.take(self.kv.due_in(step))
            return False
        opening, block_tokens = self.kv.opening(step), self.kv.block_tokens
        for request in [r for r in self.decoding if self.offset[r] % block_tokens == opening]:
            while not self.kv.free and request in self.decoding:
                self._preempt_last()
            if request not in self.decoding:
                break  # those after it are gone already
            self.kv.take(1)
        return True

    def _prefill(self, preempted: bool, budget: int) -> list[tuple[int, int, int]]:
        """Return the prompts of this step: (request, tokens computed before, tokens computed now)."""
        chunks = []
        if self.partial is not None and budget:
            request, done = self.partial, self.computed[self.partial]
            new = min(self.to_prefill[request] - done, budget)
            if not self.kv.extend(request, done, done + new):
                self._preempt_last()
                return []
            budget -= new
            chunks.append((request, done, new))
        free_seqs = self.engine.max_num_seqs - len(self.decoding) - len(chunks)
        while self.waiting and budget and free_seqs and not preempted:
            request, tokens = self.waiting[0], self.to_prefill[self.waiting[0]]
            hit = self.kv.admit(request, tokens)
            if hit < 0:
                break
            self.waiting.popleft()
            new = min(tokens - hit, budget)
            self.kv.extend(request, hit, hit + new)
            if isnan(self.start_s[request]):
                self.start_s[request], self.hit_tokens[request] = self.now_s, hit
            budget -= new
            free_seqs -= 1
            chunks.append((request, hit, new))
        return chunks

    def _preempt_last(self) -> None:
        """Take the cache of the request that was admitted last; it waits in front of all others."""
        if self.partial is not None:
            request, self.partial = self.partial, None
            self.kv.give_back(request, self.computed[request])
        else:
            request, end = self.decoding.popitem()
            tokens = self._leave(request)
            self.to_prefill[request] = tokens + 1  # the token that was yielded last isn't computed yet
            self.to_yield[request] = end - self.done_steps
        self.preemptions[request] += 1
        self.waiting.appendleft(request)

    def _end_chunk(self, request: int, computed: int) -> None:
        """Note the end of a chunk, and of the prompt where it was the last one."""
        self.computed[request] = computed
        if computed < self.to_prefill[request]:
            self.partial = request
            return
        if self.partial == request:
            self.partial = None
        if isnan(self.first_s[request]):
            self.first_s[request] = self.now_s + self.costs.token_s
        left = self.to_yield[request] - 1
        if not left:
            self.kv.give_back(request, computed)
            self._end(request)
            return
        self.offset[request] = computed - self.done_steps
        self.offsets += self.offset[request]
        self.kv.join(self.offset[request])
        self.decoding[request] = self.done_steps + left
        heappush(self.ends, (self.done_steps + left, request))

    def _end_decodes(self) -> None:
        """End the decodes whose last token the last step yielded; in running order where that matters."""
        self.ended_before = self.ended
        if self.kv.keeps_order and self.ends and self.ends[0][0] <= self.done_steps:
            for request in [r for r, step in self.decoding.items() if step == self.done_steps]:
                self._end_decode(request)
        while self.ends and self.ends[0][0] <= self.done_steps:
            step, request = heappop(self.ends)
            if self.decoding.get(request) == step:
                self._end_decode(request)

    def _end_decode(self, request: int) -> None:
        del self.decoding[request]
        self._leave(request)
        self._end(request)

    def _leave(self, request: int) -> int:
        """Free what a request that decoded held; return its computed tokens."""
        offset = self.offset[request]
        self.offsets -= offset
        self.kv.leave(offset)
        self.kv.give_back(request, offset + self.done_steps)
        return offset + self.done_steps

    def _end(self, request: int) -> None:
        self.ended += 1
        self.end_s[request] = self.now_s + self.costs.token_s
        self.feed.ended(self.end_s[request])

    def run(self) -> EngineRun:
        """Return what the engine did; times of requests that haven't ended are NaN."""
        return EngineRun(
            arrival_s=np.array(self.feed.arrival_s),
            start_s=np.array(self.start_s),
            first_token_s=np.array(self.first_s),
            end_s=np.array(self.end_s),
            output_tokens=np.array(self.outputs, np.int64),
            preemptions=np.array(self.preemptions, np.int64),
            hit_tokens=np.array(self.hit_tokens, np.int64),
            steps=self.done_steps,
            busy_s=self.busy_s,
            seq_steps=self.seq_steps,
            max_kv_tokens=self.kv.most_used * self.kv.block_tokens,
            kv_capacity_tokens=self.kv.total * self.kv.block_tokens,
        )
