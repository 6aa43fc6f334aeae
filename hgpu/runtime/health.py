"""Waiting until servers on this machine are healthy, or finding out why they never will be."""

import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hgpu.core.errors import EngineError
from hgpu.profilers.last_words import blames_port, last_words

_POLL_S = 0.1  # no event tells that another process's server has come up
_PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server to wait for.

    `alive` tells whether its process runs, `owns_port` whether it is that process that listens:
    a stranger that took the port might well answer in its place.
    """

    name: str
    url: str
    log: Path
    alive: Callable[[], bool]
    owns_port: Callable[[], bool] = lambda: True


class ServerDied(EngineError):
    """A server's process ended before it was healthy."""

    def __init__(self, server: Server) -> None:
        super().__init__(
            f"{server.name} died while it started", last_words(server.log), f"its whole log is {server.log}"
        )
        self.server = server.name
        self.port_taken = blames_port(server.log)


def is_healthy(url: str, timeout_s: float = _PROBE_TIMEOUT_S) -> bool:
    """Ask `GET /health` once; only 200 is healthy."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_healthy(
    servers: Sequence[Server], timeout_s: float, on_healthy: Callable[[str], None] = lambda _: None
) -> None:
    """Return when all servers have been healthy; `on_healthy` gets each one's name as it comes up.

    Raises ServerDied as soon as any of them dies, and EngineError when `timeout_s` seconds are over.
    """
    deadline = time.monotonic() + timeout_s
    pending = list(servers)
    while pending:
        for server in list(pending):
            if not server.alive():
                raise ServerDied(server)
            if is_healthy(server.url) and server.owns_port():
                pending.remove(server)
                on_healthy(server.name)
        if pending and time.monotonic() > deadline:
            raise _timed_out(pending[0], timeout_s)
        if pending:
            time.sleep(_POLL_S)


def _timed_out(server: Server, timeout_s: float) -> EngineError:
    return EngineError(
        f"{server.name} is not healthy after {timeout_s:g} s",
        f"its log ends with: {last_words(server.log)}",
        f"allow more time, or read {server.log}",
    )
