"""The router as a process: its event loop, its metrics' port, and the signals that end it."""

import asyncio
import importlib.util
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hgpu.core.errors import InputError
from hgpu.runtime.ports import LOCALHOST
from hgpu.runtime.router.router import Router, RouterOptions
from hgpu.runtime.router.table import Table


@dataclass(frozen=True, slots=True)
class Listen:
    """Where clients connect, and the port of 127.0.0.1 with the metrics, if any."""

    host: str = LOCALHOST
    port: int = 0
    metrics_port: int | None = None


def run_router(
    table: Table,
    urls: Mapping[str, str],
    options: RouterOptions,
    listen: Listen,
    key: str | None,
    note: Callable[[str], None],
    prefill_urls: Mapping[str, str] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises InputError where the address can't be used."""
    if listen.host != LOCALHOST and not key:
        raise InputError(
            f"no API key guards {listen.host}",
            "whoever reaches the router could use the engines",
            "set HGPU_API_KEY, or listen on 127.0.0.1",
        )
    _in_loop(_served(Router(table, urls, options, key, note, prefill_urls), listen))


async def _served(router: Router, listen: Listen) -> None:
    from prometheus_client import start_http_server

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        if listen.metrics_port is not None:
            start_http_server(listen.metrics_port, LOCALHOST, router.metrics.registry)
        await router.serve(listen.host, listen.port, stop)
    except OSError as error:
        raise InputError(
            f"can't listen on {listen.host}:{listen.port}",
            error.strerror or str(error),
            "choose another --port",
        ) from error


def _in_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run in uvloop's event loop where that is installed."""
    factory = import_module("uvloop").new_event_loop if importlib.util.find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(coroutine)
