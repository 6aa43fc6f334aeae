"""What the router answers itself: OpenAI's form of an error, so that clients show its message."""

import json

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def reply(status: int, message: str, keep_alive: bool, retry_after_s: int | None = None) -> bytes:
    """Return a whole response: an error in OpenAI's form, or for 200 the message as JSON says it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    body = json.dumps({"status": message} if status == 200 else error).encode()
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", "content-type: application/json"]
    lines += [f"content-length: {len(body)}"]
    lines += [f"retry-after: {retry_after_s}"] if retry_after_s is not None else []
    lines += ["www-authenticate: Bearer"] if status == 401 else []
    lines += [] if keep_alive else ["connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + body
