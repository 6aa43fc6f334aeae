"""A server that answers completions after known delays, or fails in known ways. Run as a process of its own.

    python -m hgpu.bench.mock_server --first-ms 20 --gap-ms 5 --fault 429 --every 10

prints `listening on PORT`. It is raw asyncio, so that it is no slower than the client that is tested
against it; each token is written for itself. `GET /mock/delays` tells what the delays really were, by the
server's own clock, and `/mock/written` when the first token of each prompt went out.
"""

import argparse
import asyncio
import json
import random
import re
import signal
import ssl
import time
from dataclasses import dataclass
from typing import cast

from hgpu.bench.timetable import Timetable

FAULTS = ("", "429", "500", "stall", "half", "count", "drop", "error", "die")
KEY_BYTES = 20  # of a prompt, that tell it from others
_NUMBERS = re.compile(rb'"max_tokens":\s?(\d+)')
_FIRST_ID = re.compile(rb'"prompt":\[ *(\d+)')
_LENGTH = re.compile(rb"content-length:\s?(\d+)", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: mock\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


def _event(choices: str, usage: str = "null") -> bytes:
    named = '"id":"cmpl-0123456789abcdef","object":"text_completion","created":1700000000,"model":"mock"'
    return _chunk(f'data: {{{named},"choices":[{choices}],"usage":{usage}}}\n\n'.encode())


_TOKEN = _event('{"index":0,"text":" word","logprobs":null,"finish_reason":null,"stop_reason":null}')
_CHAT_ROLE = _event('{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}')
_CHAT_TOKEN = _event('{"index":0,"delta":{"content":" word"},"finish_reason":null}')
_ERRORS = {
    "error": _chunk(b'data: {"error":{"message":"engine dead","code":500}}\n\n'),
    "vocabulary": _chunk(b'data: {"error":{"message":"Token id out of vocabulary","code":400}}\n\n'),
}
_DONE = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Seconds to the first token (up to `jitter_s` more, uniform), between two; every `every`-th fails."""

    first_s: float = 0.0
    jitter_s: float = 0.0
    gap_s: float = 0.0
    fault: str = ""
    every: int = 1
    template_tokens: int = 0
    vocabulary: int = 1 << 30


class Mock:
    """What all connections share."""

    def __init__(self, behaviour: Behaviour, loop: asyncio.AbstractEventLoop) -> None:
        self.behaviour = behaviour
        self.timetable = Timetable(loop)
        self.random = random.Random(0)
        self.requests = 0
        self.first_s: list[float] = []  # from having read a request to having written its first token
        self.written: list[tuple[str, float]] = []  # a prompt's beginning, when its first token was written
        self.prompts: list[str] = []  # the beginnings of the last prompts

    def fault(self) -> str:
        """Count a request and return how it is to fail."""
        self.requests += 1
        return self.behaviour.fault if self.requests % self.behaviour.every == 0 else ""


class Stream(asyncio.Protocol):
    """One connection."""

    def __init__(self, mock: Mock) -> None:
        self.mock = mock
        self.pending = b""
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Stop answering."""
        self.closed = True

    def data_received(self, data: bytes) -> None:
        """Answer once a request is whole."""
        self.pending += data
        end = self.pending.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.pending[:end]
        length = _LENGTH.search(head)
        body_end = end + 4 + (int(length[1]) if length else 0)
        if len(self.pending) < body_end:
            return
        body, self.pending = self.pending[end + 4 : body_end], self.pending[body_end:]
        if head.startswith(b"GET"):
            self.tell(head.split(b" ", 2)[1].decode())
        else:
            self.complete(head, body)

    def tell(self, path: str) -> None:
        """Answer a GET."""
        told: dict[str, object] = {
            "/v1/models": {"data": [{"id": "mock"}]},
            "/version": {"version": "mock"},
            "/mock/delays": {"first_s": self.mock.first_s, "requests": self.mock.requests},
            "/mock/written": self.mock.written,
            "/mock/prompts": self.mock.prompts,
        }
        self.answer(
            200 if path in told or path == "/health" else 404, json.dumps(told.get(path, {})).encode()
        )

    def answer(self, status: int, body: bytes) -> None:
        """Answer in one piece."""
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)

    def beyond(self, body: bytes) -> str:
        """Return the fault of a prompt whose first token id isn't in the vocabulary."""
        first = _FIRST_ID.search(body) if self.mock.behaviour.vocabulary < 1 << 30 else None
        return "vocabulary" if first and int(first[1]) >= self.mock.behaviour.vocabulary else ""

    def complete(self, head: bytes, body: bytes) -> None:
        """Answer a completion, or fail."""
        read_s = time.monotonic()
        behaviour, fault = self.mock.behaviour, self.mock.fault() or self.beyond(body)
        self.mock.prompts = [*self.mock.prompts[-99:], body[:4000].decode(errors="replace")]
        if fault == "die":
            signal.raise_signal(signal.SIGKILL)
        if fault in ("429", "500"):
            self.answer(int(fault), b'{"error":"too much"}')
        elif fault == "drop":
            self.transport.abort()
        elif fault != "stall":
            answer = Answer(self, body, b"/chat/" in head[:60], fault, read_s)
            delay_s = behaviour.first_s + self.mock.random.uniform(0.0, behaviour.jitter_s)
            if delay_s:
                self.mock.timetable.at(read_s + delay_s, answer.first)
            else:
                answer.first()


class Answer:
    """One stream of tokens."""

    __slots__ = ("chat", "fault", "key", "left", "next_s", "output", "prompt", "read_s", "stream", "token")

    def __init__(self, stream: Stream, body: bytes, chat: bool, fault: str, read_s: float) -> None:
        tokens = _NUMBERS.search(body)
        self.stream, self.chat, self.fault, self.read_s = stream, chat, fault, read_s
        self.output = int(tokens[1]) if tokens else 16
        self.prompt = self.prompt_tokens(body)
        self.left = self.output
        start = body.find(b":[") + 2
        self.key = body[start : start + KEY_BYTES].decode(errors="replace")
        self.token = _CHAT_TOKEN if chat else _TOKEN

    def prompt_tokens(self, body: bytes) -> int:
        """Count token ids, or letters and what a template would add."""
        if not self.chat:
            start = body.find(b"[")
            return body.count(b",", start, body.find(b"]", start)) + 1
        start = body.find(b'"content":"') + 11
        letters = body.count(b" ", start, body.find(b'"', start))
        return letters + self.stream.mock.behaviour.template_tokens

    def first(self) -> None:
        """Write the head and the first token."""
        if self.stream.closed:
            return
        head = _HEAD + (_CHAT_ROLE if self.chat else b"")
        if self.fault == "half":
            self.stream.transport.write(head + self.token[: len(self.token) // 2])
        elif self.fault in _ERRORS:
            self.stream.transport.write(head + _ERRORS[self.fault] + _DONE)
        else:
            self.next_s = time.monotonic()
            self.stream.mock.first_s.append(self.next_s - self.read_s)
            self.stream.mock.written.append((self.key, self.next_s))
            self.tokens(head)

    def tokens(self, head: bytes = b"") -> None:
        """Write what is due, a token or all of them, and come back for the next."""
        if self.stream.closed:
            return
        gap_s = self.stream.mock.behaviour.gap_s
        due = 1 if gap_s else self.left
        self.left -= due
        self.stream.transport.write(head + self.token * due + (b"" if self.left else self.end()))
        if self.left:
            self.next_s += gap_s
            self.stream.mock.timetable.at(self.next_s, self.tokens)

    def end(self) -> bytes:
        """Return the usage and the end."""
        output = self.output + (self.fault == "count")
        total = self.prompt + output
        counts = f'"prompt_tokens":{self.prompt},"total_tokens":{total},"completion_tokens":{output}'
        return _event("", f"{{{counts}}}") + _DONE


async def serve(behaviour: Behaviour, port: int, tls: ssl.SSLContext | None) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    mock = Mock(behaviour, loop)
    server = await loop.create_server(lambda: Stream(mock), "127.0.0.1", port, ssl=tls, backlog=4096)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description="A mock of an OpenAI-compatible server.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--first-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--gap-ms", type=float, default=0.0)
    parser.add_argument("--fault", choices=FAULTS, default="")
    parser.add_argument("--every", type=int, default=1, help="every how manieth request fails")
    parser.add_argument("--template-tokens", type=int, default=0, help="that a chat template adds")
    parser.add_argument("--vocabulary", type=int, default=1 << 30, help="token ids that there are")
    parser.add_argument("--certificate", help="PEM file with certificate and key: serve TLS")
    options = parser.parse_args()
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate)
    behaviour = Behaviour(
        options.first_ms / 1e3,
        options.jitter_ms / 1e3,
        options.gap_ms / 1e3,
        options.fault,
        options.every,
        options.template_tokens,
        options.vocabulary,
    )
    asyncio.run(serve(behaviour, options.port, tls))


if __name__ == "__main__":
    main()
