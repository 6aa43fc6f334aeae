"""Connections to one server: kept alive, one request at a time on each, as many as are needed."""

import asyncio
import ssl
import time
from array import array
from collections.abc import Callable
from typing import cast

from hgpu.bench.exchange import BAD_RESPONSE, CLOSED_EARLY, CONNECT, TIMEOUT, TLS, Exchange
from hgpu.bench.response import BadResponse, Response
from hgpu.bench.target import Target

_BUFFER_BYTES = 16384
_KEPT_S = 1.0  # a server that keeps connections alive at all does so for longer
_CLOSING_TURNS = 4  # of the loop, until a TLS transport that was told to close has done so
_SWEEP_S = 0.1  # how exactly a timeout is kept


class Connection(asyncio.BufferedProtocol):
    """One connection; the client hands it a request and hears when that has ended."""

    __slots__ = ("_buffer", "_client", "_message", "_response", "_transport", "busy", "idle_since_s")

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))  # TLS reads into slices of it
        self._response = Response(client.gaps_s)
        self._message = b""
        self.busy: Exchange | None = None
        self.idle_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        self._transport = cast(asyncio.Transport, transport)

    def send(self, exchange: Exchange, message: bytes) -> None:
        """Send a request and expect its response."""
        self.busy = exchange
        self._message = message
        self._response.begin(exchange)
        if self.closing:  # a server that accepts and hangs up
            self.fail(CLOSED_EARLY)
        else:
            self._transport.write(message)

    @property
    def closing(self) -> bool:
        """Whether the server, or an error, has ended the connection."""
        return self._transport.is_closing()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that have come."""
        if self.busy is None:  # nobody asked
            self._transport.abort()
            return
        try:
            whole = self._response.feed(bytes(self._buffer[:nbytes]), time.monotonic())
        except BadResponse as error:
            self.fail(f"{BAD_RESPONSE}: {error}")
            return
        if whole:
            self._end()

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """End what was in flight.

        A server may close a connection that was long idle just as a request goes out: it is sent once more.
        """
        self._client.forget(self)
        exchange = self.busy
        if exchange is None:
            return
        if self._response.at_end():
            self._end()
        elif self._went_stale(exchange):
            self.busy = None
            exchange.retried = True
            self._client.send(exchange, self._message)
        else:
            self.fail(f"{CLOSED_EARLY}: {error}" if error else CLOSED_EARLY)

    def _went_stale(self, exchange: Exchange) -> bool:
        idle_s = exchange.sent_s - self.idle_since_s if self.idle_since_s else 0.0
        return idle_s > _KEPT_S and not self._response.started and not exchange.retried

    def fail(self, why: str) -> None:
        """End the request in flight with an error, and the connection with it."""
        exchange, self.busy = self.busy, None
        self._client.forget(self)
        self._transport.abort()
        if exchange is not None:
            exchange.error = exchange.error or why
            self._client.ended(exchange)

    def abort(self) -> None:
        """Close the connection without a farewell."""
        self._transport.abort()

    def _end(self) -> None:
        exchange, self.busy = cast(Exchange, self.busy), None
        exchange.error = exchange.verdict()
        self.idle_since_s = time.monotonic()
        if self._response.keep_alive:
            self._client.idle.append(self)
        else:
            self._transport.close()
        self._client.ended(exchange)


class Client:
    """Sends requests to a target. `ended` is called once for each, with its result in it.

    Errors end a request, they are never raised. `close` when all have ended.
    """

    def __init__(self, target: Target, ended: Callable[[Exchange], None]) -> None:
        self.ended = ended
        self.gaps_s = array("d")
        self.idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._target = target
        self._tls = target.tls()
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweep = self._loop.call_later(_SWEEP_S, self._end_late)

    def send(self, exchange: Exchange, message: bytes) -> None:
        """Send on an idle connection, or on a new one."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.closing:
                connection.send(exchange, message)
                return
        task = self._loop.create_task(self._connect_and_send(exchange, message))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def forget(self, connection: Connection) -> None:
        """Note that a connection is gone."""
        self._all.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    async def close(self) -> None:
        """Close every connection."""
        self._sweep.cancel()
        for connection in list(self._all):
            connection.abort()
        for task in list(self._connecting):
            task.cancel()
        for _ in range(_CLOSING_TURNS):
            await asyncio.sleep(0)

    async def _connect_and_send(self, exchange: Exchange, message: bytes) -> None:
        left_s = exchange.sent_s + self._target.timeout_s - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self), self._target.host, self._target.port, ssl=self._tls
                )
        except ssl.SSLError as error:
            exchange.error = f"{TLS}: {getattr(error, 'verify_message', '') or error.reason or error}"
        except TimeoutError:
            exchange.error = f"{TIMEOUT}: no connection in {self._target.timeout_s:g} s"
        except OSError as error:
            exchange.error = f"{CONNECT}: {error.strerror or error}"
        if exchange.error:
            self.ended(exchange)
            return
        self._all.add(connection)
        connection.send(exchange, message)

    def _end_late(self) -> None:
        """End what has taken too long: a server that stalls may never say another word."""
        latest_s = time.monotonic() - self._target.timeout_s
        for connection in list(self._all):
            if connection.busy is not None and connection.busy.sent_s < latest_s:
                connection.fail(f"{TIMEOUT}: not over after {self._target.timeout_s:g} s")
        self._sweep = self._loop.call_later(_SWEEP_S, self._end_late)
