"""Connections to the pools: kept alive, one request at a time on each."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

_NO_BODY = (204, 304)


class Reader(Protocol):
    """Who reads a response."""

    def received(self, data: bytes) -> None:
        """Take the response's bytes as they came. `connection.begun` says whether its body has begun."""

    def ended(self, keep_alive: bool) -> None:
        """Hear that the response is whole; without `keep_alive` it was the connection's last."""

    def failed(self, stale: bool) -> None:
        """Hear that no more will come; `stale` where a connection that had been idle said nothing at all."""


@dataclass(slots=True, eq=False)
class Pool:
    """One pool's server: where it is, whether it answers, and what it is at.

    Where the pool is a pair of engines, this one decodes, and `prefill` computes prompts for it.
    """

    name: str
    url: str
    host: str
    port: int
    healthy: bool = True
    leaving: bool = False  # the plan doesn't have it any more
    in_flight: int = 0
    idle: list["Connection"] = field(default_factory=list)
    prefill: "Pool | None" = None
    awaited: set[asyncio.Future[bool]] = field(default_factory=set)  # prompts that it is computing

    @property
    def authority(self) -> bytes:
        """The value of the `Host` header."""
        return f"{self.host}:{self.port}".encode()

    def leave(self) -> None:
        """Take no more requests, close the connections that nothing is at, and wait for no prompts."""
        self.leaving = True
        if self.prefill:
            self.prefill.forsake()
        for connection in list(self.idle):
            connection.transport.close()
        self.idle.clear()

    @property
    def servers(self) -> tuple["Pool", ...]:
        """What can answer a request of this pool, the one that should first."""
        return (self, self.prefill) if self.prefill else (self,)

    def forsake(self) -> None:
        """Wait no longer for prompts: each of them can be computed elsewhere."""
        for future in self.awaited:
            if not future.done():
                future.set_result(False)

    def idle_connection(self) -> "Connection | None":
        """Take a connection that is kept open, if there is one."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None


def pool_at(name: str, url: str, prefill_url: str | None = None) -> Pool:
    """Return a pool by its URL, and that of the engine that computes its prompts, if one does."""
    where = urlsplit(url)
    prefill = pool_at(f"{name}/prefill", prefill_url) if prefill_url else None
    return Pool(name, url, where.hostname or "", where.port or 80, prefill=prefill)


class Connection(asyncio.Protocol):
    """One connection to a pool, and the parser that tells where a response's body begins and ends."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.status = 0
        self.begun = False  # the body
        self._reader: Reader | None = None
        self._reused = self._held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        self.transport = cast(asyncio.Transport, transport)

    def send(self, reader: Reader, message: bytes) -> None:
        """Send a request; `reader` hears of its response."""
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self)
        self._heard = self.begun = self._whole = False
        self._framed = self._keep_alive = False
        self.status = 0
        if self.transport.is_closing():  # a server that accepts and hangs up
            self._fail()
        else:
            self.transport.write(message)

    def data_received(self, data: bytes) -> None:
        """Find the frame and hand the bytes on as they are."""
        if self._reader is None:  # nobody asked
            self.transport.abort()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()
            return
        self._reader.received(data)
        if self._whole and self._reader is not None:
            self._end(self._keep_alive)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the reader: a response without a frame ends so, any other breaks off."""
        if self in self.pool.idle:
            self.pool.idle.remove(self)
        if self._reader is None:
            return
        if self.begun and not self._framed and error is None:
            self._end(keep_alive=False)
        else:
            self._fail()

    def hold(self, held: bool) -> None:
        """Read no more for now, or go on."""
        if held != self._held and not self.transport.is_closing():
            self._held = held
            self.transport.pause_reading() if held else self.transport.resume_reading()

    def abandon(self) -> None:
        """Hang up: nobody waits for the rest, and an engine that sees this stops generating."""
        self._reader = None
        self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note whether the end of the body can be told."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Note the status."""
        self.status = self._parser.get_status_code()
        self._framed = self._framed or self.status in _NO_BODY

    def on_body(self, body: bytes) -> None:
        """Note that the body has begun."""
        self.begun = True

    def on_message_complete(self) -> None:
        """Note that the response is whole."""
        self._whole = self.begun = True
        self._keep_alive = self._parser.should_keep_alive()  # later it tells of the next message

    def _end(self, keep_alive: bool) -> None:
        reader, self._reader = cast(Reader, self._reader), None
        if keep_alive and not self.transport.is_closing() and not self.pool.leaving:
            self._reused = True
            self.hold(False)
            self.pool.idle.append(self)
        else:
            self.transport.close()
        reader.ended(keep_alive)

    def _fail(self) -> None:
        reader, self._reader = self._reader, None
        self.transport.abort()
        if reader is not None:
            reader.failed(stale=self._reused and not self._heard)


async def connect(pool: Pool, loop: asyncio.AbstractEventLoop, timeout_s: float) -> Connection:
    """Open a connection to a pool. Raises OSError, TimeoutError among them."""
    connection = Connection(pool)
    async with asyncio.timeout(timeout_s):
        await loop.create_connection(lambda: connection, pool.host, pool.port)
    return connection
