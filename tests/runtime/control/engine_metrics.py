"""A server whose /metrics are vLLM's: its names, labels and buckets, written by the library that it uses.

Names, label names and 1-2-5 buckets are those of vllm/v1/metrics/loggers.py and buckets.py (0.26 to 0.32).
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

EDGES = [m * 10**e for e in range(4) for m in (1, 2, 5)] + [10_000]
LABELS = ["model_name", "engine"]
REASONS = ("stop", "length", "abort", "error")


class EngineMetrics:
    """One server's counters."""

    def __init__(self, engines: int = 1) -> None:
        self.registry = CollectorRegistry()
        self.engines = [("a/model", str(number)) for number in range(engines)]
        made = {"registry": self.registry}
        self.running = Gauge("vllm:num_requests_running", "In batches.", LABELS, **made)
        self.waiting = Gauge("vllm:num_requests_waiting", "To be processed.", LABELS, **made)
        by_reason = [*LABELS, "reason"]
        self.by_reason = Gauge("vllm:num_requests_waiting_by_reason", "By reason.", by_reason, **made)
        self.ended = Counter("vllm:request_success", "Processed.", [*LABELS, "finished_reason"], **made)
        self.inputs = Histogram("vllm:request_prompt_tokens", "Prefill.", LABELS, buckets=EDGES, **made)
        self.outputs = Histogram(
            "vllm:request_generation_tokens", "Generation.", LABELS, buckets=EDGES, **made
        )
        for labels in self.engines:
            self.in_flight(0, 0)
            self.by_reason.labels(*labels, "capacity").set(0)
            for reason in REASONS:
                self.ended.labels(*labels, reason)
            self.inputs.labels(*labels)
            self.outputs.labels(*labels)

    def in_flight(self, running: int, waiting: int) -> None:
        """Set the gauges of every engine."""
        for labels in self.engines:
            self.running.labels(*labels).set(running)
            self.waiting.labels(*labels).set(waiting)

    def end(self, requests: int, input_tokens: int, output_tokens: int, engine: int = 0) -> None:
        """Count requests that ended."""
        labels = self.engines[engine]
        self.ended.labels(*labels, "stop").inc(requests)
        for _ in range(requests):
            self.inputs.labels(*labels).observe(input_tokens)
            self.outputs.labels(*labels).observe(output_tokens)

    @property
    def text(self) -> str:
        """What /metrics answers."""
        return generate_latest(self.registry).decode()


class Engine:
    """Serves metrics that a test sets; `at_each_look` requests end between two looks."""

    def __init__(self) -> None:
        self.metrics = EngineMetrics()
        self.at_each_look = 0
        self.lengths = (500, 50)
        self.status = 200

    async def answer(self, _: web.Request) -> web.Response:
        text = self.metrics.text
        self.metrics.end(self.at_each_look, *self.lengths)
        return web.Response(text=text, content_type="text/plain", status=self.status)


@contextmanager
def serving(engine: Engine) -> Iterator[str]:
    """Serve an engine's metrics on a free port in a thread of its own; yield the URL."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_get("/metrics", engine.answer)
    runner = web.AppRunner(app)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    port = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
