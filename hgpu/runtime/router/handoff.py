"""A pair's first half: the prompt to the prefill engine, whose KV cache the decode engine then takes over.

The prefill engine gets the client's request for one token, not streamed. When it has answered, the KV
cache of the prompt lies where the pair's connector keeps it, and the client's own request goes to the decode
engine, which loads that and computes what is left. Connectors that name what is to be fetched (vLLM's Nixl)
say so in the answer as `kv_transfer_params`, which the decode engine's request then carries; for those
that find a prompt by its tokens, the client's request goes on as it came.

The hand-off is a saving and no more: the decode engine has whole weights and can compute any prompt itself.
So whatever becomes of it, the request goes on.
"""

import asyncio
import json
from dataclasses import replace
from enum import StrEnum
from typing import Any

import httptools

from hgpu.runtime.router.paths import SIZED
from hgpu.runtime.router.request import Request
from hgpu.runtime.router.upstream import Connection, Pool, connect

_PARAMETERS = "kv_transfer_params"
_OF_THE_OUTPUT = (
    "stream",
    "stream_options",
    "max_completion_tokens",
    "min_tokens",
    "n",
    "best_of",
    "use_beam_search",
    "logprobs",
    "top_logprobs",
)
# Wanted of the prompt itself, or for another connector: such requests stay with one engine.
_UNSUITABLE = ("echo", "prompt_logprobs", _PARAMETERS)
_ASKED_OF_PREFILL = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


class Outcome(StrEnum):
    """What became of a hand-off; without one the decode engine computes the prompt."""

    DONE = "done"
    UNHEALTHY = "unhealthy"  # not tried: the prefill engine answers no probe
    FAILED = "failed"  # it couldn't be reached, hung up or answered with an error
    LATE = "late"


class Failed(Exception):
    """The prefill engine didn't compute the prompt."""


class _Whole:
    """Reads an answer to its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.whole: asyncio.Future[bool] = loop.create_future()
        self.stale = False
        self.raw = bytearray()

    def received(self, data: bytes) -> None:
        self.raw += data

    def ended(self, keep_alive: bool) -> None:
        self._end(True)

    def failed(self, stale: bool) -> None:
        self.stale = stale
        self._end(False)

    def _end(self, whole: bool) -> None:
        if not self.whole.done():
            self.whole.set_result(whole)


class _Body:
    """Finds the body in an answer's bytes."""

    def __init__(self, raw: bytes) -> None:
        self.body = b""
        httptools.HttpResponseParser(self).feed_data(raw)

    def on_body(self, data: bytes) -> None:
        self.body += data


def prefill_request(request: Request) -> Request | None:
    """Return what a prefill engine is asked in a request's place; None where one engine has to do it all."""
    document = _document(request) if request.path in SIZED and request.method == b"POST" else None
    if document is None or any(document.get(name) not in (None, False) for name in _UNSUITABLE):
        return None
    asked = {name: value for name, value in document.items() if name not in _OF_THE_OUTPUT}
    asked |= {"max_tokens": 1, _PARAMETERS: _ASKED_OF_PREFILL}
    return replace(request, body=json.dumps(asked).encode())


def decode_request(request: Request, parameters: Any) -> Request:
    """Return a request with what its decode engine has to fetch; as it came, where that is nothing."""
    document = _document(request) if parameters else None
    if document is None:
        return request
    return replace(request, body=json.dumps(document | {_PARAMETERS: parameters}).encode())


async def computed(
    pool: Pool, request: Request, loop: asyncio.AbstractEventLoop, connect_s: float
) -> tuple[int, Any]:
    """Have a prompt computed; return the answer's status and its `kv_transfer_params`, if it has any.

    Raises OSError where the engine can't be reached, Failed where it hangs up or answers what isn't JSON.
    When this is cancelled, the connection is closed, and the engine stops computing.
    """
    pool.in_flight += 1
    try:
        while True:
            connection = pool.idle_connection() or await connect(pool, loop, connect_s)
            reader = _Whole(loop)
            connection.send(reader, request.message(pool.authority))
            if await _is_whole(reader, connection):
                return connection.status, _parameters(bytes(reader.raw))
            if not reader.stale:  # a stale connection was closed by the server when it was idle
                raise Failed("it hung up, or is ill")
    finally:
        pool.in_flight -= 1


async def _is_whole(reader: _Whole, connection: Connection) -> bool:
    whole = False
    connection.pool.awaited.add(reader.whole)
    try:
        whole = await reader.whole
        return whole
    finally:
        connection.pool.awaited.discard(reader.whole)
        if not whole:
            connection.abandon()


def _parameters(raw: bytes) -> Any:
    try:
        document = json.loads(_Body(raw).body)
    except (ValueError, RecursionError) as error:
        raise Failed("its answer isn't JSON") from error
    return document.get(_PARAMETERS) if isinstance(document, dict) else None


def _document(request: Request) -> dict[str, Any] | None:
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
