"""Scripts played against a server from outside: what a client can see of single engine steps.

While N requests stream, the gap between a stream's tokens is one engine step over N sequences. A
lone prompt's time to first token is its prefill step (or steps) after the fixed cost of a request.
A prompt that joins N streams shows as one long gap in each of them.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from hgpu.core.errors import InvalidMeasurement
from hgpu.core.step import StepBatch, prefill_batch
from hgpu.profilers.design import Script
from hgpu.profilers.stream import Stream, completion_body, stream_completion

if TYPE_CHECKING:
    import aiohttp

FIRST_TOKEN = 10  # ids below are often special
STALL_S = 120.0  # without a token from any stream
Step = tuple[StepBatch, float]


@dataclass(slots=True)
class Player:
    """Plays scripts against one server; not for concurrent use.

    `request_s` is the fixed cost of a request (HTTP, tokenizer, scheduling), taken off the time to
    first token. `budget` is the server's max_num_batched_tokens.
    """

    session: "aiohttp.ClientSession"
    url: str
    model: str
    vocab_size: int
    max_model_len: int
    budget: int
    random: Random
    request_s: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, script: Script) -> list[Step]:
        """Return the steps that a script shows, with their seconds."""
        if not script.decode_seqs:
            return [await self._prefill(script.prefill_tokens)]
        return await self._ladder(script)

    async def first_token_s(self, prompt_tokens: int) -> float:
        """Return the seconds from sending a lone prompt to its first token."""
        stream = await stream_completion(self.session, self.url, self._body(prompt_tokens, 1))
        if stream.error or not stream.token_s:
            raise InvalidMeasurement(
                f"{self.url} didn't answer a prompt of {prompt_tokens} tokens",
                stream.error or "no token came back",
                "see the server's log; it must take prompts of token ids and a lone `ignore_eos`",
            )
        return stream.token_s[0] - stream.sent_s

    async def measure_request_s(self, repeats: int) -> float:
        """Measure and keep the fixed cost: a one-token prompt's TTFT, less a decode step of one sequence."""
        firsts = [await self.first_token_s(1) for _ in range(repeats)]
        steps = await self._ladder(Script("one", decode_seqs=1, decode_context=16, decode_steps=4 * repeats))
        gap_s = statistics.median(seconds for _, seconds in steps)
        self.request_s = max(0.0, statistics.median(firsts) - gap_s)
        return self.request_s

    async def _prefill(self, tokens: int) -> Step:
        """The prefill step of a prompt; of one beyond the budget, its last chunk, by difference."""
        whole_s = await self.first_token_s(tokens)
        if tokens <= self.budget:
            return prefill_batch(tokens), max(whole_s - self.request_s, 1e-6)
        before = (tokens - 1) // self.budget * self.budget
        return prefill_batch(tokens - before, before), max(whole_s - await self.first_token_s(before), 1e-6)

    async def _ladder(self, script: Script) -> list[Step]:
        streams: list[Stream] = []
        tasks: list[asyncio.Task[Stream]] = []
        steps: list[Step] = []
        try:
            for rung in script.rungs:
                for _ in range(len(streams), rung):
                    self._start(script.decode_context, streams, tasks)
                await self._until(lambda: all(stream.token_s for stream in streams), streams)
                since = [len(stream.token_s) for stream in streams]
                wanted = [count + script.decode_steps for count in since]
                await self._until(partial(_reached, streams, wanted), streams)
                steps += _decode_steps(streams, since, script)
            if 0 < script.prefill_tokens <= self.budget - len(streams):
                steps.append(await self._joined(script, streams))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self.first_token_s(1)  # the server has taken up new work, so the aborted streams are gone
        return steps

    async def _joined(self, script: Script, streams: list[Stream]) -> Step:
        """A prompt beside the streams: the longest gap of each while the prompt waits for its token."""
        emitted = sum(len(stream.token_s) for stream in streams)
        begun = time.perf_counter()
        await self.first_token_s(script.prefill_tokens)
        ended = time.perf_counter()
        counts = [len(stream.token_s) for stream in streams]
        await self._until(lambda: _reached(streams, [count + 1 for count in counts]), streams)
        gaps = [
            max(b - a for a, b in zip(s.token_s, s.token_s[1:], strict=False) if b > begun and a < ended)
            for s in streams
        ]
        batch = StepBatch(
            prefill_tokens=script.prefill_tokens,
            prefill_seqs=1,
            prefill_pairs=script.prefill_tokens * (script.prefill_tokens + 1) / 2,
            decode_seqs=len(streams),
            decode_context_tokens=len(streams) * script.decode_context + emitted,
        )
        return batch, statistics.median(gaps)

    def _start(self, context: int, streams: list[Stream], tasks: list[asyncio.Task[Stream]]) -> None:
        stream = Stream()
        body = self._body(context, self.max_model_len - context - 1)
        call = stream_completion(self.session, self.url, body, lambda _: self.changed.set(), stream)
        streams.append(stream)
        task = asyncio.ensure_future(call)
        task.add_done_callback(lambda _: self.changed.set())
        tasks.append(task)

    async def _until(self, holds: Callable[[], bool], streams: list[Stream]) -> None:
        """Wait for tokens until a condition holds; a stream that ends or stalls is an error."""
        while not holds():
            broken = next((s for s in streams if s.error or s.end_s), None)
            if broken is not None:
                raise InvalidMeasurement(
                    "a stream ended before it was asked to",
                    broken.error or "the server stopped it",
                    "see its log",
                )
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), STALL_S)
            except TimeoutError as error:
                raise InvalidMeasurement(
                    f"no stream had a token for {STALL_S:g} s",
                    "the server hangs, or is too busy",
                    "see its log",
                ) from error

    def _body(self, prompt_tokens: int, output_tokens: int) -> dict[str, object]:
        prompt = [self.random.randrange(FIRST_TOKEN, self.vocab_size) for _ in range(prompt_tokens)]
        return completion_body(self.model, prompt, output_tokens)


def _reached(streams: list[Stream], wanted: list[int]) -> bool:
    return all(len(stream.token_s) >= count for stream, count in zip(streams, wanted, strict=True))


def _decode_steps(streams: list[Stream], since: list[int], script: Script) -> list[Step]:
    """Return the steps in which all streams decoded: at each, the median of their gaps."""
    steps = []
    for number in range(script.decode_steps):
        gaps = [
            s.token_s[n + number] - s.token_s[n + number - 1] for s, n in zip(streams, since, strict=True)
        ]
        context = sum(script.decode_context + n + number for n in since)
        batch = StepBatch(decode_seqs=len(streams), decode_context_tokens=context)
        steps.append((batch, max(statistics.median(gaps), 1e-6)))
    return steps
