"""The router at work: what its connections share, its probes of the pools, and its end."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hgpu.core.errors import InputError
from hgpu.runtime.health import is_healthy
from hgpu.runtime.router.front import Front
from hgpu.runtime.router.metrics import Metrics
from hgpu.runtime.router.size import Size
from hgpu.runtime.router.table import Table
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
    """Shared by all connections. `urls` has one URL for each of the table's pools.

    A pool in `prefill_urls` is a pair: there its prompts are computed, and its other URL decodes.
    """

    def __init__(
        self,
        table: Table,
        urls: Mapping[str, str],
        options: RouterOptions,
        key: str | None = None,
        note: Callable[[str], None] = lambda _: None,
        prefill_urls: Mapping[str, str] | None = None,
    ) -> None:
        require_same(table.pools, urls)
        prefill_urls = prefill_urls or {}
        require_known(table.pools, prefill_urls)
        self.table, self.options, self.note = table, options, note
        self.key = key.encode() if key else b""
        self.pools = [pool_at(name, urls[name], prefill_urls.get(name)) for name in table.pools]
        self.servers = [server for pool in self.pools for server in pool.servers]
        self.metrics = Metrics(self.pools)
        self.metrics.bytes_per_token.set(options.bytes_per_token)
        self.clients: set[Front] = set()
        self.draining = False
        self._bytes_per_token = options.bytes_per_token
        self._idle = asyncio.Event()

    async def serve(self, host: str, port: int, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then take no more connections and answer what has come."""
        self.loop = asyncio.get_running_loop()
        server = await self.loop.create_server(lambda: Front(self), host, port, backlog=4096)
        probes = [self.loop.create_task(self._probe(server)) for server in self.servers]
        try:
            self.note(f"routing on http://{host}:{server.sockets[0].getsockname()[1]}")
            await stop.wait()
            server.close()
            await self._drained()
        finally:
            for probe in probes:
                probe.cancel()
            await asyncio.gather(*probes, return_exceptions=True)

    def tokens(self, size: Size) -> float:
        """Return the prompt's tokens, as far as is known."""
        return size.input_tokens(self._bytes_per_token)

    def order(self, size: Size, tier: str) -> list[int]:
        """Return the pools to try for a request of that size."""
        tokens = self.tokens(size)
        if self.table.beyond(tokens):
            self.metrics.beyond_plan.inc()
        return self.table.order(tokens, size.max_tokens, tier)

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

    async def _probe(self, pool: Pool) -> None:
        url = f"http://{pool.authority.decode()}"
        failures = 0
        while True:
            answers = await asyncio.to_thread(is_healthy, url)
            failures = 0 if answers else failures + 1
            if answers and not pool.healthy:
                self.note(f"{pool.name}: answers again")
                pool.healthy = True
            if failures >= FAILURES:
                self.ill(pool, f"/health failed {FAILURES} times")
            await asyncio.sleep(self.options.probe_s)


def require_same(pools: tuple[str, ...], urls: Mapping[str, str]) -> None:
    """Raise InputError unless there is a URL for each pool, and for nothing else."""
    missing, unknown = sorted(set(pools) - set(urls)), sorted(set(urls) - set(pools))
    if missing or unknown:
        raise InputError(
            "the pools' URLs don't match the plan",
            "; ".join(
                f"{what} {', '.join(names)}"
                for what, names in (("missing:", missing), ("not in it:", unknown))
                if names
            ),
            "give --pool NAME=URL once for each pool of `hgpu show PLAN`",
        )


def require_known(pools: tuple[str, ...], prefill_urls: Mapping[str, str]) -> None:
    """Raise InputError for a prefill engine of a pool that the plan lacks."""
    unknown = sorted(set(prefill_urls) - set(pools))
    if unknown:
        raise InputError(
            f"no pool is called {', '.join(unknown)}",
            f"the plan's are {', '.join(pools)}",
            "give --prefill NAME=URL for pools of `hgpu show PLAN` only",
        )
