"""The router at work: what its connections share, its probes of the pools, and its end."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hgpu.runtime.health import is_healthy
from hgpu.runtime.router.following import Followed
from hgpu.runtime.router.front import Front
from hgpu.runtime.router.metrics import Metrics
from hgpu.runtime.router.size import Size
from hgpu.runtime.router.table import ANY_TIER, Table
from hgpu.runtime.router.upstream import Pool, pool_at

FAILURES = 2  # of probes in a row, until a pool counts as ill
_LEARNING = 0.05  # the part that the newest prompt has in bytes per token
_LEAST, _MOST = 0.5, 32.0  # bytes that a token may have; what is beyond was no count of this prompt


@dataclass(frozen=True, slots=True)
class RouterOptions:
    """Seconds to try a request without an answer, for those in flight at the end, and between probes.

    A pair's prefill engine has `handoff_s` seconds for a prompt; those of less than `handoff_tokens` tokens
    aren't handed off, as connectors pass on whole blocks: of 16 tokens on GPUs, on CPUs of 128.
    """

    retry_s: float = 60.0
    drain_s: float = 120.0
    probe_s: float = 1.0
    body_bytes: int = 64 << 20
    bytes_per_token: float = 4.0
    handoff_s: float = 30.0
    handoff_tokens: float = 128.0


class Router:
    """Shared by all connections. It follows one plan at a time."""

    def __init__(
        self,
        plan: Followed,
        options: RouterOptions,
        key: str | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.options, self.note = options, note
        self.key = key.encode() if key else b""
        self.pools: list[Pool] = []
        self.metrics = Metrics()
        self.metrics.bytes_per_token.set(options.bytes_per_token)
        self.clients: set[Front] = set()
        self.draining = False
        self._bytes_per_token = options.bytes_per_token
        self._idle = asyncio.Event()
        self._leaving: list[Pool] = []  # servers of earlier plans; streams of theirs may be under way
        self._probes: dict[Pool, asyncio.Task[None]] | None = None
        self.follow(plan)

    @property
    def table(self) -> Table:
        """The routing table of the plan that is followed."""
        return self.plan.table

    @property
    def servers(self) -> list[Pool]:
        """All servers of the pools: two for a pair."""
        return [server for pool in self.pools for server in pool.servers]

    def follow(self, plan: Followed) -> None:
        """Send what comes from now on as a plan says.

        A server of the same name and place stays as it is, so that a pool gets a prefill engine, or loses
        it, while its other engine goes on. Answers that have begun come to their end where they are, also
        from a server that the plan doesn't have; requests without one take the new way. A prompt that a
        prefill engine has begun to compute is still handed off where the pool's other engine stays.
        """
        urls, prefill_urls, names = plan.urls, plan.prefill_urls, plan.table.pools
        fresh = [pool_at(name, urls[name], prefill_urls.get(name)) for name in names]
        old = self.servers
        known = {(server.name, server.url): server for server in old}
        self.plan, self.pools = plan, [_joined(pool, known) for pool in fresh]
        left = [server for server in old if server not in self.servers]
        for server in left:
            server.leave()
        self._leaving = [server for server in (*self._leaving, *left) if server.in_flight]
        self.metrics.stand_before(self.pools, self._leaving)
        if self._probes is not None:
            self._probe_all(self._probes)

    async def serve(self, host: str, port: int, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then take no more connections and answer what has come."""
        self.loop = asyncio.get_running_loop()
        server = await self.loop.create_server(lambda: Front(self), host, port, backlog=4096)
        probes = self._probes = {}
        try:
            self._probe_all(probes)
            self.note(f"routing on http://{host}:{server.sockets[0].getsockname()[1]}")
            await stop.wait()
            server.close()
            await self._drained()
        finally:
            for probe in probes.values():
                probe.cancel()
            await asyncio.gather(*probes.values(), return_exceptions=True)

    def tokens(self, size: Size) -> float:
        """Return the prompt's tokens, as far as is known."""
        return size.input_tokens(self._bytes_per_token)

    def order(self, size: Size, tier: str) -> list[Pool]:
        """Return the pools to try for a request of that size; the mix, where a new plan lacks its tier."""
        tokens = self.tokens(size)
        if self.table.beyond(tokens):
            self.metrics.beyond_plan.inc()
        tier = tier if tier in self.table.tiers else ANY_TIER
        return [self.pools[number] for number in self.table.order(tokens, size.max_tokens, tier)]

    def learn(self, text_bytes: int, prompt_tokens: int) -> None:
        """Move bytes per token towards what an engine has counted."""
        seen = text_bytes / prompt_tokens if prompt_tokens else 0.0
        if _LEAST <= seen <= _MOST:
            self._bytes_per_token += _LEARNING * (seen - self._bytes_per_token)
            self.metrics.bytes_per_token.set(self._bytes_per_token)

    def ill(self, pool: Pool, why: str) -> None:
        """Try a pool last until it answers a probe."""
        if pool.healthy:
            self.note(f"{pool.name}: {why}")
            pool.healthy = False
            pool.forsake()

    def left(self, client: Front) -> None:
        """Hear that a client has gone."""
        self.clients.discard(client)
        if not self.clients:
            self._idle.set()

    async def _drained(self) -> None:
        self.draining = True
        self.note(f"draining: {sum(client.busy for client in self.clients)} requests in flight")
        for client in list(self.clients):
            client.drain()
        if self.clients:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), self.options.drain_s)
            except TimeoutError:
                self.note(f"{len(self.clients)} requests aren't answered after {self.options.drain_s:g} s")

    def _probe_all(self, probes: dict[Pool, asyncio.Task[None]]) -> None:
        """Probe the servers that the plan has, and no others."""
        servers = self.servers
        for gone in [server for server in probes if server not in servers]:
            probes.pop(gone).cancel()
        for server in servers:
            if server not in probes:
                probes[server] = self.loop.create_task(self._probe(server))

    async def _probe(self, pool: Pool) -> None:
        failures = 0
        while True:
            answers = await asyncio.to_thread(is_healthy, pool.url)
            failures = 0 if answers else failures + 1
            if answers and not pool.healthy:
                self.note(f"{pool.name}: answers again")
                pool.healthy = True
            if failures >= FAILURES:
                self.ill(pool, f"/health failed {FAILURES} times")
            await asyncio.sleep(self.options.probe_s)


def _joined(fresh: Pool, known: Mapping[tuple[str, str], Pool]) -> Pool:
    """Return a plan's pool, of servers that stand already where there are such."""
    pool = known.get((fresh.name, fresh.url), fresh)
    prefill = fresh.prefill
    pool.prefill = known.get((prefill.name, prefill.url), prefill) if prefill else None
    return pool
