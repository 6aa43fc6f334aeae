"""One completion from an OpenAI-compatible server: the proof that a deployment generates tokens."""

import http.client
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hgpu.core.errors import EngineError

API_KEY_VARIABLES = ("HGPU_API_KEY", "VLLM_API_KEY")


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back. `tokens` is the server's own count; TTFT runs from the send to the first chunk."""

    text: str
    tokens: int
    ttft_s: float
    seconds: float


def api_key() -> str | None:
    """Return the API key of the environment. It travels in environments and headers only."""
    return next((os.environ[name] for name in API_KEY_VARIABLES if os.environ.get(name)), None)


def served_model(url: str, timeout_s: float = 30.0) -> str:
    """Return the first model that `GET /v1/models` lists."""
    with _answer(url, "GET", "/v1/models", None, timeout_s) as response:
        document = _json(response.read())
    try:
        return str(document["data"][0]["id"])
    except (KeyError, IndexError, TypeError) as error:
        raise EngineError(f"{url} serves no model", f"/v1/models says {document}") from error


def served_engine(url: str, timeout_s: float = 10.0) -> str:
    """Return what serves there and its version, such as `vllm 0.26.0`; empty where it doesn't say."""
    try:
        with _answer(url, "GET", "/v1/models", None, timeout_s) as response:
            owner = str(_json(response.read())["data"][0].get("owned_by", ""))
        with _answer(url, "GET", "/version", None, timeout_s) as response:
            return f"{owner} {_json(response.read())['version']}".strip()
    except (EngineError, KeyError, IndexError, TypeError, AttributeError):
        return ""


def complete(url: str, model: str, prompt: str, max_tokens: int, timeout_s: float = 120.0) -> Completion:
    """Stream one completion of at most `max_tokens` tokens.

    Raises EngineError where the server refuses, breaks off or generates nothing.
    """
    request = {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.perf_counter()
    first: float | None = None
    text, tokens = "", 0
    with _answer(url, "POST", "/v1/completions", request, timeout_s) as response:
        for chunk in _chunks(response):
            if chunk.get("choices"):
                first = first or time.perf_counter()
                text += chunk["choices"][0].get("text") or ""
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    if first is None or tokens < 1:
        raise EngineError(
            f"{url} generated no token", "its stream ended without one", "read the engines' logs"
        )
    return Completion(text, tokens, first - started, time.perf_counter() - started)


def _chunks(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Yield the JSON documents of a server-sent event stream up to `[DONE]`."""
    for line in response:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        chunk = _json(data)
        if "error" in chunk:
            raise EngineError("the completion broke off", str(chunk["error"]), "read the engines' logs")
        yield chunk


@contextmanager
def _answer(
    url: str, method: str, path: str, body: dict[str, Any] | None, timeout_s: float
) -> Iterator[http.client.HTTPResponse]:
    where = urlsplit(url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(where.hostname or "", where.port, timeout=timeout_s)
    key = api_key()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, where.path.rstrip("/") + path, text, headers)
        response = connection.getresponse()
        if response.status != 200:
            excerpt = response.read(500).decode(errors="replace")
            raise EngineError(
                f"{method} {url}{path} answered {response.status}", excerpt, _hint(response.status)
            )
        yield response
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(
            f"{method} {url}{path} failed",
            str(error) or type(error).__name__,
            "check the URL, and that a server listens there; `hgpu status` has those of deployments",
        ) from error
    finally:
        connection.close()


def _hint(status: int) -> str:
    if status in (401, 403):
        return f"the engines want the API key that they were started with: set {API_KEY_VARIABLES[0]}"
    return "read the engines' logs"


def _json(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise EngineError("the server's answer is not JSON", data[:200].decode(errors="replace")) from error
    if not isinstance(document, dict):
        raise EngineError("the server's answer is not a JSON object", str(document)[:200])
    return document
