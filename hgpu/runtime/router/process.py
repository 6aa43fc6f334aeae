"""The router as a process: its event loop, its metrics' port, and the signals that it takes."""

import asyncio
import importlib.util
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hgpu.core.errors import InputError
from hgpu.runtime.ports import LOCALHOST
from hgpu.runtime.router.following import Read, follow_again
from hgpu.runtime.router.router import Router, RouterOptions


@dataclass(frozen=True, slots=True)
class Listen:
    """Where clients connect, and the port of 127.0.0.1 with the metrics, if any."""

    host: str = LOCALHOST
    port: int = 0
    metrics_port: int | None = None


def run_router(
    read: Read,
    options: RouterOptions,
    listen: Listen,
    key: str | None,
    note: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; on SIGHUP, `read` the plan again and follow it.

    Raises InputError where the address can't be used, or the plan can't be followed from the start.
    """
    if listen.host != LOCALHOST and not key:
        raise InputError(
            f"no API key guards {listen.host}",
            "whoever reaches the router could use the engines",
            "set HGPU_API_KEY, or listen on 127.0.0.1",
        )
    _in_loop(_served(Router(read(), options, key, note), read, listen))


async def _served(router: Router, read: Read, listen: Listen) -> None:
    from prometheus_client import start_http_server

    stop, again = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, again.set)
    rereading = loop.create_task(follow_again(router, read, again))
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
    finally:
        rereading.cancel()


def _in_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run in uvloop's event loop where that is installed."""
    factory = import_module("uvloop").new_event_loop if importlib.util.find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(coroutine)
