"""One request's way: to a pool, to another where that fails, and its answer back untouched.

Until the first byte of an answer's body has come, nothing of it has gone to the client: the head is held
back (vLLM sends it when it takes a request, long before the first token). So a request whose engine dies
before it has begun to answer is sent again, and the client sees nothing of it. Once bytes have gone out, a
break is passed on as a break: the client must learn that its answer isn't whole.

A pool that is a pair gets a request in two halves (`handoff.py`). Where its decode engine can't be had, its
prefill engine, which is a whole engine too, answers alone. Each round goes by the plan of its time, and a
prompt whose decode engine has left the plan by the time it is computed begins a round anew.
"""

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Protocol, cast

from hgpu.runtime.router.following import Followed
from hgpu.runtime.router.handoff import Failed, Outcome, computed, decode_request, prefill_request
from hgpu.runtime.router.reply import reply
from hgpu.runtime.router.request import Request
from hgpu.runtime.router.size import Size
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
        self._plan: Followed | None = None  # that the order is of
        self._order: list[Pool] = []
        self._sent = request  # with what a decode engine has to fetch, if it has
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
        if self._plan is not self._router.plan:  # the first round, or another plan since
            self._plan = self._router.plan
            self._order = self._router.order(self._size, self._tier)
        servers = [server for pool in self._order for server in pool.servers]
        self._left = sorted(servers, key=lambda server: not server.healthy)
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
            self._send(pool, self._sent)
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
            self._begin(self._left.pop(0))
        elif self._time_left():
            self._timer = self._router.loop.call_later(self._pause_s, self.start)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        else:
            self._give_up()

    def _begin(self, pool: Pool) -> None:
        """Send the request to a server; to a pair that decodes, once its prompt is computed."""
        asked = prefill_request(self._request) if pool.prefill and self._worth_it(pool) else None
        if pool.prefill is None or asked is None:
            self._send(pool, self._request)
        elif not pool.prefill.healthy:
            self._router.metrics.handed_off(pool.name, Outcome.UNHEALTHY)
            self._send(pool, self._request)
        else:
            self._task = self._router.loop.create_task(self._hand_off(pool, pool.prefill, asked))

    def _worth_it(self, pool: Pool) -> bool:
        return pool.healthy and self._router.tokens(self._size) >= self._router.options.handoff_tokens

    async def _hand_off(self, pool: Pool, prefill: Pool, asked: Request) -> None:
        outcome, parameters = await self._prefilled(prefill, asked)
        self._task = None
        if pool.leaving:  # another plan since: nobody is left to decode here
            self.start()
            return
        self._router.metrics.handed_off(pool.name, outcome)
        self._send(pool, decode_request(self._request, parameters))

    async def _prefilled(self, prefill: Pool, asked: Request) -> tuple[Outcome, Any]:
        loop = self._router.loop
        try:
            async with asyncio.timeout(self._router.options.handoff_s):
                status, parameters = await computed(prefill, asked, loop, CONNECT_S)
        except TimeoutError:
            return Outcome.LATE, None
        except OSError as error:
            self._router.ill(prefill, error.strerror or type(error).__name__)
            return Outcome.FAILED, None
        except Failed:
            return Outcome.FAILED, None
        return (Outcome.DONE, parameters) if status == 200 else (Outcome.FAILED, None)

    def _send(self, pool: Pool, request: Request) -> None:
        self._held.clear()
        self._sent = request
        pool.in_flight += 1
        connection = pool.idle_connection()
        if connection is not None:
            self._use(connection)
        else:
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
        connection.send(self, self._sent.message(connection.pool.authority))
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
