"""One streamed completion from an OpenAI-compatible server, with the arrival time of every token."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp


@dataclass(slots=True)
class Stream:
    """What has come back so far; times are seconds of `time.perf_counter`.

    `token_s` has an entry a chunk that carries text. `tokens` is the server's own count, known at
    the end. `error` says what went wrong, and is empty where nothing did.
    """

    sent_s: float = 0.0
    token_s: list[float] = field(default_factory=list)
    end_s: float = 0.0
    tokens: int = 0
    error: str = ""


def completion_body(model: str, prompt: Sequence[int], output_tokens: int) -> dict[str, Any]:
    """Return a request for exactly `output_tokens` tokens after a prompt of token ids."""
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def stream_completion(
    session: "aiohttp.ClientSession",
    url: str,
    body: dict[str, Any],
    on_token: Callable[[Stream], None] = lambda _: None,
    stream: Stream | None = None,
) -> Stream:
    """Send `body` to `url`/v1/completions and return the stream; errors are in it, not raised.

    `on_token` is called after each chunk with text, with the stream so far.
    """
    import aiohttp

    stream = stream or Stream()
    stream.sent_s = time.perf_counter()
    try:
        async with session.post(f"{url}/v1/completions", json=body) as response:
            if response.status != 200:
                stream.error = f"HTTP {response.status}: {(await response.text())[:200]}"
                return stream
            async for line in response.content:
                if line.startswith(b"data: {"):
                    _take(stream, json.loads(line[6:]), on_token)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        stream.error = f"{type(error).__name__}: {error}"
    stream.end_s = time.perf_counter()
    if not stream.error and stream.tokens != body["max_tokens"]:
        stream.error = f"asked for {body['max_tokens']} tokens, the server counted {stream.tokens}"
    return stream


def _take(stream: Stream, event: dict[str, Any], on_token: Callable[[Stream], None]) -> None:
    if "error" in event:
        stream.error = str(event["error"])[:200]
    if any(choice.get("text") is not None for choice in event.get("choices", [])):
        stream.token_s.append(time.perf_counter())
        on_token(stream)
    if event.get("usage"):
        stream.tokens = int(event["usage"]["completion_tokens"])
