"""Where the load is read: the `/metrics` of engines, by pool.

A name may stand for many engines (a headless Service of Kubernetes does): all its addresses are asked.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hgpu.core.errors import EngineError, HgpuError, InputError, UnknownName
from hgpu.runtime.control.scrape import Passed, Scrape, parse_metrics, passed

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_S = 5.0
LARGEST_BYTES = 16 << 20  # of an answer: vLLM's has some hundred KiB


@dataclass(frozen=True, slots=True)
class Source:
    """A URL of engines' metrics, and the pool that they are of."""

    pool: str
    url: str


def sources_of(words: Sequence[str], pools: Sequence[str]) -> tuple[Source, ...]:
    """Return the sources of words such as `l4=http://10.0.0.7:8000`; a lone pool may be left out.

    Raises UnknownName for other pools, and InputError for what is no URL and for pools that no URL is of:
    how many of their engines answer could never be known.
    """
    sources = tuple(_source(word, pools) for word in words)
    blind = [pool for pool in pools if pool not in {source.pool for source in sources}]
    if blind:
        raise InputError(
            f"no --metrics URL is of pool {', '.join(blind)}",
            "whether its engines answer could never be seen",
            f"give --metrics {blind[0]}=URL for each engine, or one name that stands for all of them",
        )
    return sources


def _source(word: str, pools: Sequence[str]) -> Source:
    pool, _, url = word.partition("=") if "=" in word.partition("://")[0] else ("", "", word)
    if not pool and len(pools) == 1:
        pool = pools[0]
    if pool not in pools:
        if pool:
            raise UnknownName("pool", pool, pools)
        raise InputError(
            f"whose engines are at {word}?", f"the plan has pools {', '.join(pools)}", "give POOL=URL"
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"'{url}' is no URL of metrics",
            "it isn't http(s)://HOST[:PORT]",
            "give such as http://10.0.0.7:8000",
        )
    return Source(pool, url if parts.path.rstrip("/") else f"{url.rstrip('/')}/metrics")


@dataclass(frozen=True, slots=True)
class Reading:
    """What happened on each engine since the last reading, how many of each pool answer, why others don't.

    `addresses` counts those that don't answer too. Nothing is known to have happened on an engine that
    answers for the first time: a counter says something only beside an earlier one.
    """

    passed: tuple[Passed, ...]
    answering: dict[str, int]
    addresses: dict[str, int]
    silent: tuple[str, ...]


@dataclass(slots=True)
class Reader:
    """Asks all sources and remembers what each engine said last."""

    sources: Sequence[Source]
    last: dict[tuple[str, str], Scrape] = field(default_factory=dict)

    async def read(self, session: "aiohttp.ClientSession") -> Reading:
        """Return a reading. Raises EngineError where not one engine answers."""
        found = await asyncio.gather(*(self._ask_all(session, source) for source in self.sources))
        scrapes: dict[tuple[str, str], Scrape] = {}
        answering = dict.fromkeys((source.pool for source in self.sources), 0)
        addresses = dict(answering)
        silent: list[str] = []
        for source, (said, failed) in zip(self.sources, found, strict=True):
            scrapes |= {(source.url, address): scrape for address, scrape in said.items()}
            answering[source.pool] += len(said)
            addresses[source.pool] += len(said) + len(failed)
            silent += failed
        if not scrapes:
            raise EngineError("no engine's metrics can be read", "; ".join(silent))
        made = tuple(passed(self.last[at], now) for at, now in scrapes.items() if at in self.last)
        self.last |= scrapes  # an engine that is silent today may tell tomorrow what happened in between
        return Reading(made, answering, addresses, tuple(silent))

    async def _ask_all(
        self, session: "aiohttp.ClientSession", source: Source
    ) -> tuple[dict[str, Scrape], list[str]]:
        """Return what each address of a source says, and why the others say nothing."""
        said: dict[str, Scrape] = {}
        failed: list[str] = []
        try:
            addresses = await _addresses(source.url)
        except OSError as error:
            return said, [f"{source.url}: {error.strerror or error}"]
        answers = await asyncio.gather(
            *(_ask(session, source.url, address) for address in addresses), return_exceptions=True
        )
        for address, answer in zip(addresses, answers, strict=True):
            if isinstance(answer, Scrape):
                said[address] = answer
            else:
                why = answer.what if isinstance(answer, HgpuError) else str(answer) or type(answer).__name__
                failed.append(f"{source.url} at {address}: {why}")
        return said, failed


async def _addresses(url: str) -> list[str]:
    """Return all addresses that a URL's host has; of TLS the name itself, which its certificate is for."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return [host]
    found = await asyncio.get_running_loop().getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
    return sorted({str(row[4][0]) for row in found})


async def _ask(session: "aiohttp.ClientSession", url: str, address: str) -> Scrape:
    from aiohttp import ClientTimeout

    parts = urlsplit(url)
    host = f"[{address}]" if ":" in address else address
    port = f":{parts.port}" if parts.port else ""
    there = parts._replace(netloc=f"{host}{port}").geturl()
    headers = {"Host": parts.netloc.rpartition("@")[2]}
    async with session.get(there, headers=headers, timeout=ClientTimeout(TIMEOUT_S)) as answer:
        if answer.status != 200:
            raise EngineError(f"answered {answer.status}")
        body = bytearray()
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > LARGEST_BYTES:
                raise EngineError(f"answered more than {LARGEST_BYTES} bytes")
    return parse_metrics(body.decode(errors="replace"))
