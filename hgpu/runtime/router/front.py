"""Connections of clients: requests are read whole, one after another, and answered in that order."""

import asyncio
import hmac
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from hgpu.runtime.router.exchange import Exchange
from hgpu.runtime.router.paths import HEALTH, SIZED, WORDS, passed_on
from hgpu.runtime.router.reply import CONTINUE, reply
from hgpu.runtime.router.request import Request
from hgpu.runtime.router.size import Size, size_of

if TYPE_CHECKING:
    from hgpu.runtime.router.router import Router

HEAD_BYTES = 64 * 1024
PIPELINED = 16  # requests that a client may send before it has read the answers of earlier ones
TIER = b"x-hgpu-tier"


class Refused(Exception):
    """A request that isn't passed on."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Front(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, router: "Router") -> None:
        self._router = router
        self._exchange: Exchange | None = None
        self._waiting: deque[Request] = deque()
        self._last = False  # no more requests are read
        self.paused = False  # the client reads more slowly than is written
        self._packet_bytes = 0
        self._begin()
        self._parser = httptools.HttpRequestParser(self)

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or has come in part."""
        return self._exchange is not None or bool(self._waiting) or self._reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the router's clients."""
        self._transport = cast(asyncio.Transport, transport)
        self._router.clients.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Stop what nobody waits for any longer."""
        self._waiting.clear()
        if self._exchange is not None:
            self._exchange.abandon()
            self._exchange = None
        self._router.left(self)

    def pause_writing(self) -> None:
        """Hold the pool back."""
        self.paused = True
        if self._exchange is not None:
            self._exchange.pause(True)

    def resume_writing(self) -> None:
        """Let the pool go on."""
        self.paused = False
        if self._exchange is not None:
            self._exchange.pause(False)

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        if self._last:
            return
        self._packet_bytes = len(data)
        try:
            self._parser.feed_data(data)
            self._bound(len(data))
        except Refused as refused:
            self._refuse(refused)
        except httptools.HttpParserError as error:
            told = error.__context__
            self._refuse(told if isinstance(told, Refused) else Refused(400, f"not HTTP: {error}"))

    def _bound(self, packet_bytes: int) -> None:
        """Refuse a request that doesn't end, be it in its head or in the frame of its body."""
        self._read_bytes += packet_bytes
        if not self._reading:
            return
        if not self._in_body and self._read_bytes > HEAD_BYTES:
            raise Refused(431, f"a request's head is longer than {HEAD_BYTES} bytes")
        if self._read_bytes > HEAD_BYTES + 2 * self._router.options.body_bytes:
            raise Refused(413, "a body and what frames it may have twice as many bytes as a body")

    def drain(self) -> None:
        """Close, if only after the requests that have come are answered."""
        if not self.busy:
            self._last = True
            self._transport.close()

    # the answer

    def write(self, data: bytes) -> None:
        """Pass on bytes of the answer."""
        self._transport.write(data)

    def finish(self, keep_alive: bool) -> None:
        """Turn to the next request, or close."""
        self._exchange = None
        if keep_alive and self._waiting:
            self._answer(self._waiting.popleft())
        elif not keep_alive or self._last or (self._router.draining and not self._reading):
            self._last = True
            self._transport.close()

    def break_off(self) -> None:
        """Close so that the client sees that its answer isn't whole."""
        self._exchange = None
        self._last = True
        self._transport.abort()

    # the parser's calls

    def on_message_begin(self) -> None:
        """Note that a request has begun to come."""
        self._reading = True

    def on_url(self, url: bytes) -> None:
        """Add to the target."""
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; what comes behind a body in chunks (a trailer) is none."""
        if not self._in_body:
            self._request.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Refuse what needs no reading, and ask for the body of a client that waits to be asked."""
        request = self._request
        request.method = self._parser.get_method()
        request.keep_alive = self._parser.should_keep_alive()
        self._in_body = True
        if self._parser.get_http_version() != "1.1":
            raise Refused(505, "HTTP/1.1 only")
        if self._parser.should_upgrade():
            raise Refused(400, "connections aren't upgraded here")
        length = request.header(b"content-length")
        if length.isdigit() and int(length) > self._router.options.body_bytes:
            raise Refused(413, f"a body may have {self._router.options.body_bytes} bytes")
        if request.header(b"expect").lower() == b"100-continue" and self._exchange is None:
            self._transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Add to the body."""
        self._body.append(body)
        self._body_bytes += len(body)
        if self._body_bytes > self._router.options.body_bytes:
            raise Refused(413, f"a body may have {self._router.options.body_bytes} bytes")

    def on_message_complete(self) -> None:
        """Answer it now, or after those before it."""
        request = self._request
        request.body = b"".join(self._body)
        self._begin()
        if self._exchange is None:
            self._answer(request)
        elif len(self._waiting) < PIPELINED:
            self._waiting.append(request)
        else:
            raise Refused(400, f"more than {PIPELINED} requests at once on one connection")

    def _begin(self) -> None:
        self._request = Request()
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._read_bytes = -self._packet_bytes  # a request's bytes count from the packet after its first
        self._in_body = self._reading = False

    def _answer(self, request: Request) -> None:
        try:
            self._exchange = self._admitted(request)
        except Refused as refused:
            self.write(reply(refused.status, str(refused), request.keep_alive))
            self._router.metrics.answered("", refused.status, 0.0)
            self.finish(request.keep_alive)
            return
        if self._exchange is None:
            self.write(reply(200, "ok", request.keep_alive))
            self.finish(request.keep_alive)
        else:
            self._exchange.start()

    def _admitted(self, request: Request) -> Exchange | None:
        """Return the exchange of a request; None where the router answers it itself."""
        router = self._router
        if request.path == HEALTH:
            if not any(server.healthy for server in router.servers):
                raise Refused(503, "no pool is healthy")
            return None
        if router.key and not _knows(request.header(b"authorization"), router.key):
            raise Refused(401, "the API key is missing or wrong")
        if request.method not in (b"GET", b"POST"):
            raise Refused(405, "GET and POST only")
        if not passed_on(request.path):
            raise Refused(404, WORDS)
        tier = request.header(TIER).decode(errors="replace")
        if tier not in router.table.tiers:
            known = ", ".join(sorted(router.table.tiers - {""})) or "none"
            raise Refused(400, f"no tier has the name '{tier}'; the plan's: {known}")
        size = size_of(request.body) if request.path in SIZED else Size(0, 0, None)
        return Exchange(router, self, request, size, tier)

    def _refuse(self, refused: Refused) -> None:
        """Answer what can't be read on, after which the connection ends."""
        self._last = True
        self._router.metrics.answered("", refused.status, 0.0)
        if self._exchange is None:
            self.write(reply(refused.status, str(refused), keep_alive=False))
            self._transport.close()
        else:  # the answer under way must not be mixed with this one: it is the last
            self._waiting.clear()


def _knows(authorization: bytes, key: bytes) -> bool:
    scheme, _, given = authorization.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), key)
