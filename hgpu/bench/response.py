"""An HTTP/1.1 response with server-sent events, taken apart as its bytes come in.

Text chunks are recognised by their bytes; only a chunk that carries a usage count or an error is parsed
as JSON. That is most of what makes this cheap: the text itself interests nobody here.
"""

import json
import re
from array import array

from hgpu.bench.exchange import BAD_RESPONSE, SERVER_ERROR, Exchange

# A quote inside a JSON string is escaped, so that generated text can't look like one of these keys.
_TEXT = re.compile(rb'"(?:text|content|reasoning|reasoning_content)":\s?"')
_COUNTED = re.compile(rb'"usage":\s?\{')
_FAILED = re.compile(rb'"error":\s?[{"]')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)")
_EXCERPT_BYTES = 200
_HEAD_LIMIT_BYTES = 65536


class BadResponse(Exception):
    """Bytes that aren't HTTP/1.1, or aren't what a completion looks like."""


class Response:
    """Fills `exchange` from bytes; `gaps_s` collects the gaps between text chunks of all requests."""

    __slots__ = (
        "_body_left",
        "_chunked",
        "_excerpt",
        "_partial_line",
        "_pending",
        "_status",
        "exchange",
        "gaps_s",
        "keep_alive",
        "started",
    )

    def __init__(self, gaps_s: "array[float]") -> None:
        self.gaps_s = gaps_s
        self.begin(Exchange(-1, 0.0, 0, 0))

    def begin(self, exchange: Exchange) -> None:
        """Expect a new response, to this request."""
        self.exchange = exchange
        self.keep_alive = True
        self.started = False
        self._status = 0
        self._chunked = False
        self._body_left = -1  # bytes; −1: until the connection closes
        self._pending = b""
        self._partial_line = b""
        self._excerpt = b""

    def feed(self, data: bytes, now_s: float) -> bool:
        """Take bytes that came at a moment; return whether the response is whole. Raises BadResponse."""
        self.started = True
        if self._pending:
            data, self._pending = self._pending + data, b""
        if not self._status:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > _HEAD_LIMIT_BYTES:
                    raise BadResponse("its head doesn't end")
                self._pending = data
                return False
            self._head(data[: end + 2])
            data = data[end + 4 :]
        return self._chunks(data, now_s) if self._chunked else self._plain(data, now_s)

    def at_end(self) -> bool:
        """Tell whether a response is whole because the connection was closed behind it."""
        return self._status > 0 and not self._chunked and self._body_left < 0 and self._finish()

    def _head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise BadResponse(f"it begins with {head[:20]!r}")
        self._status = int(head[9:12])
        head = head.lower()
        self._chunked = b"\r\ntransfer-encoding: chunked" in head
        self.keep_alive = b"\r\nconnection: close" not in head and not head.startswith(b"http/1.0")
        if not self._chunked and (length := _LENGTH.search(head)):
            self._body_left = int(length[1])

    def _plain(self, data: bytes, now_s: float) -> bool:
        if self._body_left < 0:
            self._take(data, now_s)
            self.keep_alive = False
            return False
        self._take(data[: self._body_left], now_s)
        self._body_left -= min(len(data), self._body_left)
        return self._body_left == 0 and self._finish()

    def _chunks(self, data: bytes, now_s: float) -> bool:
        at, end = 0, len(data)
        while at < end:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                break
            size = _chunk_size(data[at:line_end])
            start = line_end + 2
            if not size:
                if data.find(b"\r\n\r\n", line_end) < 0:  # behind it may come trailers
                    break
                return self._finish()
            if start + size + 2 > end:
                break
            self._take(data[start : start + size], now_s)
            at = start + size + 2
        self._pending = data[at:]
        return False

    def _finish(self) -> bool:
        if self._status != 200:
            text = self._excerpt.decode(errors="replace").strip()
            self.exchange.error = f"HTTP {self._status}" + (f": {text}" if text else "")
        return True

    def _take(self, body: bytes, now_s: float) -> None:
        if self._status != 200:
            self._excerpt = (self._excerpt + body)[:_EXCERPT_BYTES]
            return
        *lines, self._partial_line = (self._partial_line + body).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line, now_s)

    def _event(self, line: bytes, now_s: float) -> None:
        text = _TEXT.search(line)
        # A chat begins with an empty text beside the role, before there is a token.
        if text and not (line[text.end()] == 34 and b'"role"' in line):
            exchange = self.exchange
            if exchange.first_s:
                gap_s = now_s - exchange.last_s
                self.gaps_s.append(gap_s)
                if gap_s > exchange.longest_gap_s:
                    exchange.longest_gap_s = gap_s
            else:
                exchange.first_s = now_s
            exchange.last_s = now_s
        if b'"usage"' in line and _COUNTED.search(line):
            self._count(line)
        elif b'"error"' in line and _FAILED.search(line):
            told = line[5:].strip()[:_EXCERPT_BYTES].decode(errors="replace")
            self.exchange.error = f"{SERVER_ERROR}: {told}"

    def _count(self, line: bytes) -> None:
        try:
            usage = json.loads(line[5:])["usage"]
            self.exchange.output_tokens = int(usage["completion_tokens"])
            self.exchange.input_tokens = int(usage.get("prompt_tokens") or 0)
        except (ValueError, KeyError, TypeError) as error:
            self.exchange.error = f"{BAD_RESPONSE}: a usage chunk that can't be read ({error!r})"


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError as error:
        raise BadResponse(f"a chunk's size is {line[:20]!r}") from error
