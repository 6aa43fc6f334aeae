"""An open-loop load generator for OpenAI-compatible completion servers.

Requests are sent at their intended times whether or not earlier ones were answered; latency
runs from the intended time, so that a slow server, or a slow harness, can't hide behind it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hgpu.profilers.stream import Stream, completion_body, stream_completion
from hgpu.workloads.trace import Trace

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class RequestResult:
    """One request: seconds since the start of the run, and the tokens that the server counted."""

    intended_s: float
    sent_s: float
    first_s: float
    end_s: float
    output_tokens: int
    error: str = ""

    @property
    def ttft_s(self) -> float:
        """From the intended send to the first token."""
        return self.first_s - self.intended_s

    @property
    def tpot_s(self) -> float:
        """(end − first token)/(output tokens − 1); needs two tokens."""
        return (self.end_s - self.first_s) / (self.output_tokens - 1)

    @property
    def lag_s(self) -> float:
        """How late the harness itself sent."""
        return self.sent_s - self.intended_s


def run_load(
    url: str, model: str, trace: Trace, vocab_size: int, seed: int, finished: Callable[[int], None]
) -> list[RequestResult]:
    """Send a trace to `url` and return a result for each of its requests, in their order.

    Prompts are random token ids of exactly the trace's lengths; outputs are forced to theirs.
    """
    return asyncio.run(_run(url, model, trace, vocab_size, seed, finished))


async def _run(
    url: str, model: str, trace: Trace, vocab_size: int, seed: int, finished: Callable[[int], None]
) -> list[RequestResult]:
    import aiohttp

    prompts = _prompts(trace.input_tokens.tolist(), vocab_size, seed)
    outputs = trace.output_tokens.tolist()
    done = 0
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        started = time.perf_counter()

        async def one(number: int) -> RequestResult:
            nonlocal done
            intended = float(trace.arrivals_s[number])
            await asyncio.sleep(max(0.0, started + intended - time.perf_counter()))
            body = completion_body(model, prompts[number], outputs[number])
            stream = await stream_completion(session, url, body)
            done += 1
            finished(done)
            return _result(stream, intended, started)

        return await asyncio.gather(*(one(number) for number in range(trace.requests)))


def _result(stream: Stream, intended_s: float, started: float) -> RequestResult:
    sent_s = stream.sent_s - started
    if stream.error or not stream.token_s:
        return RequestResult(intended_s, sent_s, 0.0, 0.0, 0, stream.error or "no token came back")
    first_s, end_s = stream.token_s[0] - started, stream.token_s[-1] - started
    return RequestResult(intended_s, sent_s, first_s, end_s, stream.tokens)


def _prompts(lengths: Sequence[int], vocab_size: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    low = min(256, vocab_size // 2)  # past special tokens and raw bytes
    return [rng.integers(low, vocab_size, size=length).tolist() for length in lengths]
