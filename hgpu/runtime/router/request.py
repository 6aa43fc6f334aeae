"""A client's request, read whole, and as it goes on to a pool."""

from dataclasses import dataclass, field

# Of one connection, not of the request (RFC 9110, section 7.6.1), or said anew.
_OF_A_CONNECTION = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"host",
        b"content-length",
    )
)


@dataclass(slots=True)
class Request:
    """Method, target, headers in order with lower-case names, and the body."""

    method: bytes = b""
    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    keep_alive: bool = True

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]

    def header(self, name: bytes) -> bytes:
        """Return a header's value, empty where there is none."""
        return next((value for key, value in self.headers if key == name), b"")

    def message(self, host: bytes) -> bytes:
        """Return the bytes to send on, framed by the body's length whatever its frame was."""
        lines = [b"%b %b HTTP/1.1" % (self.method, self.target), b"host: " + host]
        named = b",".join(value for key, value in self.headers if key == b"connection").lower()
        dropped = _OF_A_CONNECTION | {name.strip() for name in named.split(b",")}
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] not in dropped]
        lines.append(b"content-length: %d\r\n\r\n" % len(self.body))
        return b"\r\n".join(lines) + self.body
