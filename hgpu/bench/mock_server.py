"""A server that answers completions after known delays, or fails in known ways. Run as a process of its own.

    python -m hgpu.bench.mock_server --first-ms 20 --gap-ms 5 --fault 429 --every 10

prints `listening on PORT`. It is raw asyncio, so that it is no slower than the client that is tested
against it; each token is written for itself. `GET /mock/delays` tells what the delays really were, by the
server's own clock, and `/mock/written` when the first token of each prompt went out.
"""

import argparse
import asyncio
import json
import re
import signal
import ssl
import time
from typing import cast

from hgpu.bench.mock_answer import Answer, Behaviour, Mock

FAULTS = ("", "429", "500", "stall", "half", "count", "drop", "error", "die")
_FIRST_ID = re.compile(rb'"prompt":\[ *(\d+)')
_LENGTH = re.compile(rb"content-length:\s?(\d+)", re.IGNORECASE)


class Stream(asyncio.Protocol):
    """One connection."""

    def __init__(self, mock: Mock) -> None:
        self.mock = mock
        self.pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write."""
        self.transport = cast(asyncio.Transport, transport)

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
            answer = Answer(self.mock, self.transport, body, b"/chat/" in head[:60], fault, read_s)
            delay_s = behaviour.first_s + self.mock.random.uniform(0.0, behaviour.jitter_s)
            if delay_s:
                self.mock.timetable.at(read_s + delay_s, answer.first)
            else:
                answer.first()


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
