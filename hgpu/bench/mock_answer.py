"""What the mock server answers: tokens at their moments, and each way to fail."""

import asyncio
import random
import re
import time
from dataclasses import dataclass

from hgpu.bench.timetable import Timetable

KEY_BYTES = 20  # of a prompt, that tell it from others
_NUMBERS = re.compile(rb'"max_(?:completion_)?tokens":\s?(\d+)')
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


class Answer:
    """One stream of tokens."""

    __slots__ = (
        "chat",
        "fault",
        "key",
        "left",
        "mock",
        "next_s",
        "output",
        "prompt",
        "read_s",
        "token",
        "transport",
    )

    def __init__(
        self, mock: Mock, transport: asyncio.Transport, body: bytes, chat: bool, fault: str, read_s: float
    ) -> None:
        tokens = _NUMBERS.search(body)
        self.mock, self.transport = mock, transport
        self.chat, self.fault, self.read_s = chat, fault, read_s
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
        return letters + self.mock.behaviour.template_tokens

    def first(self) -> None:
        """Write the head and the first token."""
        if self.transport.is_closing():
            return
        head = _HEAD + (_CHAT_ROLE if self.chat else b"")
        if self.fault == "half":
            self.transport.write(head + self.token[: len(self.token) // 2])
        elif self.fault in _ERRORS:
            self.transport.write(head + _ERRORS[self.fault] + _DONE)
        else:
            self.next_s = time.monotonic()
            self.mock.first_s.append(self.next_s - self.read_s)
            self.mock.written.append((self.key, self.next_s))
            self.tokens(head)

    def tokens(self, head: bytes = b"") -> None:
        """Write what is due, a token or all of them, and come back for the next."""
        if self.transport.is_closing():
            return
        gap_s = self.mock.behaviour.gap_s
        due = 1 if gap_s else self.left
        self.left -= due
        self.transport.write(head + self.token * due + (b"" if self.left else self.end()))
        if self.left:
            self.next_s += gap_s
            self.mock.timetable.at(self.next_s, self.tokens)

    def end(self) -> bytes:
        """Return the usage and the end."""
        output = self.output + (self.fault == "count")
        total = self.prompt + output
        counts = f'"prompt_tokens":{self.prompt},"total_tokens":{total},"completion_tokens":{output}'
        return _event("", f"{{{counts}}}") + _DONE
