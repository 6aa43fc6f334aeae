"""A router in this process, before servers that tests script."""

import asyncio
from contextlib import asynccontextmanager

from hgpu.artifacts.payloads.plan import RoutingRow
from hgpu.runtime.router.following import Followed
from hgpu.runtime.router.router import Router, RouterOptions
from hgpu.runtime.router.table import Table

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = (b"9\r\ndata: a\n\n\r\n", b"9\r\ndata: b\n\n\r\n", b"0\r\n\r\n")
STREAM = HEAD + b"".join(CHUNKS)


def row(shares, low=0, high=1000, output_low=0, output_high=100, rate=1.0, tier=""):
    return RoutingRow(
        bucket=f"in≤{high} out≤{output_high}",
        tier=tier,
        input_low=low,
        input_high=high,
        output_low=output_low,
        output_high=output_high,
        rate_rps=rate,
        shares=shares,
    )


def post(body=b'{"prompt": "hi"}', path=b"/v1/completions", *headers):
    lines = [b"POST %b HTTP/1.1" % path, b"host: x", b"content-length: %d" % len(body), *headers, b"", b""]
    return b"\r\n".join(lines) + body


class Backend:
    """A server whose `answer(request number, reader, writer)` is the test's; it keeps what it was sent."""

    def __init__(self, answer):
        self.answer, self.requests, self.connections, self.healthy = answer, [], set(), True
        self.tasks = []

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, reader, writer):
        task = asyncio.create_task(self(reader, writer))
        self.tasks.append(task)
        try:
            await asyncio.wait([task])
        finally:
            writer.close()  # also where the task has ended before it began

    async def __call__(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /health"):
                    writer.write(
                        b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % (200 if self.healthy else 503)
                    )
                    continue
                self.connections.add(writer)
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append((head, await reader.readexactly(length)))
                await self.answer(len(self.requests), reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def streams(number, reader, writer):
    """Answer with STREAM, a packet at a time."""
    for part in (HEAD, *CHUNKS):
        writer.write(part)
        await writer.drain()


class Gate:
    """Answers with STREAM when the test lets it; `begun` is set by the first request that has come."""

    def __init__(self):
        self.begun, self.open = asyncio.Event(), asyncio.Event()

    async def __call__(self, number, reader, writer):
        self.begun.set()
        await self.open.wait()
        await streams(number, reader, writer)


async def hangs_up_after_head(number, reader, writer):
    writer.write(HEAD)
    await writer.drain()
    writer.transport.abort()


class Running:
    def __init__(self, router, port, backends, stop, serving):
        self.router, self.port, self.backends, self.stop, self.serving = router, port, backends, stop, serving

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, message, until=CHUNKS[-1]):
        """Send a message on a connection of its own and return the answer up to its end."""
        reader, writer = await self.connect()
        writer.write(message)
        try:
            return await asyncio.wait_for(reader.readuntil(until), 10)
        except asyncio.IncompleteReadError as short:
            return short.partial
        finally:
            writer.close()

    def sample(self, name, **labels):
        return self.router.metrics.registry.get_sample_value(f"hgpu_router_{name}", labels)


@asynccontextmanager
async def routing(*answers, rows=None, limits=None, key=None, prefill=None, **options):
    """Run a router before a server for each of `answers`; the pools are called a, b, ...

    With `prefill`, an answer too, pool a is a pair, and the last of `backends` computes its prompts.
    """
    names = "abc"[: len(answers)]
    backends = [Backend(answer) for answer in (*answers, *([prefill] if prefill else ()))]
    servers = [await asyncio.start_server(backend.serve, "127.0.0.1", 0) for backend in backends]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    table = Table(
        names, limits or [4096] * len(names), rows or [row({name: 1 / len(names) for name in names})]
    )
    places = [f"http://127.0.0.1:{port}" for port in ports]
    urls = dict(zip(names, places, strict=False))
    said = asyncio.Queue()
    plan = Followed(table, urls, "first", {"a": places[-1]} if prefill else {})
    router = Router(plan, RouterOptions(**options), key, said.put_nowait)
    stop = asyncio.Event()
    serving = asyncio.create_task(router.serve("127.0.0.1", 0, stop))
    url = await said.get()
    running = Running(router, int(url.rpartition(":")[2]), backends, stop, serving)
    running.servers, running.urls, running.said = servers, urls, said
    try:
        yield running
    finally:
        stop.set()
        await serving
        await asyncio.get_running_loop().shutdown_default_executor()  # probes whose servers go next
        for server, backend in zip(servers, backends, strict=True):
            server.close()
            await backend.end()
