"""One request's way: to a pool, to another where that fails, and its answer back untouched.

Until the first byte of an answer's body has come, nothing of it has gone to the client: the head is held
back (vLLM sends it when it takes a request, long before the first token). So a request whose engine dies
before it has begun to answer is sent again, and the client sees nothing of it. Once bytes have gone out, a
break is passed on as a break: the client must learn that its answer isn't whole.
"""

import asyncio
import re
import time
from typing import TYPE_CHECKING, Protocol, cast

from hgpu.runtime.router.reply import reply
from hgpu.runtime.router.request import Request
from hgpu.runtime.router.size import Size
from hgpu.runtime.router.table import Table
from hgpu.runtime.router.upstream import Connection, Pool, connect

if TYPE_CHECKING:
    from hgpu.runtime.router.router import Router

UNAVAILABLE = (502, 503, 504)  # nobody has worked on the request; 429 and 500 are an engine's own words
CONNECT_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0  # between rounds over all pools
TAIL_BYTES = 1024
_PROMPT_TOKENS = re.compile(rb'"prompt_tokens":\s?(\d+)')


class Client(Protocol):
    """The connection that waits for the answer; `paused` where it reads more slowly than is written."""

    paused: bool

    def write(self, data: bytes) -> None:
        """Pass on bytes of the answer."""

    def finish(self, keep_alive: bool) -> None:
        """Hear that the answer is whole."""

    def break_off(self) -> None:
        """Hear that the rest of the answer won't come."""


class Exchange:
    """A request in flight. Where its prompt is text, the answer may tell how many tokens that is."""

    def __init__(self, router: "Router", client: Client, request: Request, size: Size, tier: str) -> None:
        self._router, self._client, self._request = router, client, request
        self._size, self._tier = size, tier
        self._table: Table | None = None  # that the order is of
        self._order: list[Pool] = []
        self._left: list[Pool] = []  # of this round
        self._started_s = time.monotonic()
        self._pause_s = FIRST_PAUSE_S
        self._held: list[bytes] = []
        self._tail = b""
        self._passing = False  # bytes have gone to the client
        self._over = False
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Try all pools in their order, those that answer first."""
        self._timer = None
        if self._table is not self._router.table:  # the first round, or another plan since
            self._table = self._router.table
            self._order = self._router.order(self._size, self._tier)
        self._left = sorted(self._order, key=lambda pool: not pool.healthy)
        self._next()

    def abandon(self) -> None:
        """Stop: the client has gone."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.abandon()
            self._leave(self._connection.pool)

    def pause(self, paused: bool) -> None:
        """Let the pool wait for a client that reads slowly."""
        if self._connection is not None:
            self._connection.hold(paused)

    def received(self, data: bytes) -> None:
        """Pass an answer's bytes on, or hold them until its body begins."""
        if self._passing:
            self._client.write(data)
            self._keep(data)
            return
        self._held.append(data)
        connection = self._connection
        if connection is None or not connection.begun:
            return
        if connection.status in UNAVAILABLE and self._time_left():
            self._leave(connection.pool)
            connection.abandon()
            self._failed(connection.pool)
            return
        self._pass_on(connection)

    def ended(self, keep_alive: bool) -> None:
        """Close the books on an answer that is whole."""
        if self._connection is not None:
            self._leave(self._connection.pool)
        self._over = True
        counted = _PROMPT_TOKENS.findall(self._tail)
        if counted:
            self._router.learn(self._size.text_bytes, int(counted[-1]))
        self._client.finish(keep_alive and self._request.keep_alive)

    def failed(self, stale: bool) -> None:
        """Try again where the client has seen nothing, otherwise break off."""
        pool = cast(Connection, self._connection).pool
        self._leave(pool)
        if self._passing:
            self._over = True
            self._router.metrics.broken.labels(pool.name).inc()
            self._client.break_off()
        elif stale and not pool.leaving:  # the server had closed an idle connection: no fault of its
            self._send(pool)
        else:
            self._failed(pool)

    def _pass_on(self, connection: Connection) -> None:
        self._passing = True
        self._router.metrics.answered(
            connection.pool.name, connection.status, time.monotonic() - self._started_s
        )
        held = b"".join(self._held)
        self._held.clear()
        self._client.write(held)
        self._keep(held)

    def _keep(self, data: bytes) -> None:
        """Keep the end of the answer, where engines count tokens, if there is anything to learn from it."""
        if self._size.text_bytes:
            self._tail = (self._tail + data)[-TAIL_BYTES:]

    def _next(self) -> None:
        self._left = [pool for pool in self._left if not pool.leaving]
        if self._left:
            self._send(self._left.pop(0))
        elif self._time_left():
            self._timer = self._router.loop.call_later(self._pause_s, self.start)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        else:
            self._give_up()

    def _send(self, pool: Pool) -> None:
        self._held.clear()
        pool.in_flight += 1
        while pool.idle:
            connection = pool.idle.pop()
            if not connection.transport.is_closing():
                self._use(connection)
                return
        self._task = self._router.loop.create_task(self._connect(pool))

    async def _connect(self, pool: Pool) -> None:
        try:
            connection = await connect(pool, self._router.loop, CONNECT_S)
        except OSError as error:
            self._task = None  # the next try has one of its own
            self._router.ill(pool, error.strerror or type(error).__name__)
            self._leave(pool)
            self._failed(pool)
        except asyncio.CancelledError:
            self._leave(pool)
            raise
        else:
            self._task = None
            self._use(connection)

    def _use(self, connection: Connection) -> None:
        self._connection = connection
        connection.send(self, self._request.message(connection.pool.authority))
        connection.hold(self._client.paused)

    def _leave(self, pool: Pool) -> None:
        pool.in_flight -= 1
        self._connection = None

    def _failed(self, pool: Pool) -> None:
        self._router.metrics.retries.labels(pool.name).inc()
        self._next()

    def _time_left(self) -> bool:
        return not self._over and time.monotonic() - self._started_s < self._router.options.retry_s

    def _give_up(self) -> None:
        self._over = True
        waited_s = time.monotonic() - self._started_s
        message = f"no pool has begun to answer in {waited_s:.0f} s"
        self._router.metrics.answered("", 503, waited_s)
        keep_alive = self._request.keep_alive
        self._client.write(reply(503, message, keep_alive, retry_after_s=1))
        self._client.finish(keep_alive)
