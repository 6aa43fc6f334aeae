"""A server for tests that batches like an engine and takes a known time a step."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Sequence:
    prompt_tokens: int
    wanted: int
    emitted: int = 0
    ready: asyncio.Queue = field(default_factory=asyncio.Queue)
    gone: bool = False


@dataclass
class Engine:
    """A step takes 10 ms, 80 µs a token and 2 ms a decoding sequence; a request waits 20 ms before it.

    `took_s` has what the steps really took, by prompt tokens and decoding sequences: on a busy machine
    that is more.
    """

    budget: int = 256
    request_s: float = 0.020
    fault: str = ""
    waiting: list[Sequence] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)
    served: int = 0
    took_s: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    def step_s(self, prefill_tokens: int, decode_seqs: int) -> float:
        return 1e-2 + 8e-5 * (prefill_tokens + decode_seqs) + 2e-3 * decode_seqs

    async def loop(self) -> None:
        while True:
            self.running = [s for s in self.running if not s.gone and s.emitted < s.wanted]
            prompts, self.waiting = self.waiting, []
            if not self.running and not prompts:
                await asyncio.sleep(0.0005)
                continue
            tokens, seqs = sum(p.prompt_tokens for p in prompts), len(self.running)
            begun = time.perf_counter()
            await asyncio.sleep(self.step_s(tokens, seqs))
            self.took_s.setdefault((tokens, seqs), []).append(time.perf_counter() - begun)
            self.running += prompts
            for sequence in self.running:
                sequence.emitted += 1
                sequence.ready.put_nowait(sequence.emitted)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.served += 1
        if self.fault == "refuse":
            return web.json_response({"error": "no"}, status=400)
        await asyncio.sleep(self.request_s)
        sequence = Sequence(len(body["prompt"]), body["max_tokens"])
        self.waiting.append(sequence)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while sequence.emitted < sequence.wanted or not sequence.ready.empty():
                count = await sequence.ready.get()
                if self.fault == "cut" and count == 3:
                    return response
                await response.write(b'data: {"choices": [{"text": "x"}]}\n\n')
            usage = {
                "choices": [],
                "usage": {"completion_tokens": sequence.emitted + (self.fault == "count")},
            }
            await response.write(f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
        except (ConnectionError, asyncio.CancelledError):
            sequence.gone = True
            raise
        return response


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": "test"}]})


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(text='vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0\n')


@contextmanager
def serving(engine: Engine, metrics: bool = True) -> Iterator[str]:
    """Serve an engine on a free port of 127.0.0.1, in a thread, and yield its URL."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    urls: list[str] = []
    stop = asyncio.Event()

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/completions", engine.complete)
        app.router.add_get("/v1/models", _models)
        if metrics:
            app.router.add_get("/metrics", _metrics)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        stepping = asyncio.ensure_future(engine.loop())
        started.set()
        await stop.wait()
        stepping.cancel()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    started.wait(10)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
