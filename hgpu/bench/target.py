"""The server that a load goes to: where it is, what its requests look like, who may ask."""

import json
import ssl
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from hgpu.core.errors import InputError
from hgpu.runtime.completion import api_key

TIMEOUT_S = 300.0


class Api(StrEnum):
    """Which of OpenAI's endpoints is asked."""

    COMPLETIONS = "completions"
    CHAT = "chat"


_PATHS = {Api.COMPLETIONS: "/v1/completions", Api.CHAT: "/v1/chat/completions"}


@dataclass(frozen=True, slots=True)
class Target:
    """A model behind a URL. `timeout_s` bounds a request from its send to its end."""

    url: str
    model: str
    api: Api = Api.COMPLETIONS
    timeout_s: float = TIMEOUT_S

    def __post_init__(self) -> None:
        """Refuse what isn't the URL of an HTTP server."""
        try:
            where = urlsplit(self.url)
            good = where.scheme in ("http", "https") and bool(where.hostname) and (where.port or 1) > 0
        except ValueError:
            good = False
        if not good:
            raise InputError(f"bad URL '{self.url}'", "it isn't http(s)://host[:port]", "see `hgpu status`")

    @property
    def host(self) -> str:
        """The server's name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The server's port."""
        where = urlsplit(self.url)
        return where.port or (443 if where.scheme == "https" else 80)

    def tls(self) -> ssl.SSLContext | None:
        """Return how the server is checked, None over plain HTTP; `SSL_CERT_FILE` names a CA of one's own."""
        return ssl.create_default_context() if self.url.startswith("https:") else None

    def head(self) -> bytes:
        """Return the head of a request up to its length; the API key comes from the environment."""
        where = urlsplit(self.url)
        key = api_key()
        lines = (
            f"POST {where.path.rstrip('/')}{_PATHS[self.api]} HTTP/1.1",
            f"Host: {where.netloc.rpartition('@')[2]}",
            "Content-Type: application/json",
            "Accept: text/event-stream",
            *([f"Authorization: Bearer {key}"] if key else []),
            "Content-Length: ",
        )
        return "\r\n".join(lines).encode()

    def body(self) -> tuple[bytes, bytes, bytes]:
        """Return what stands before the prompt, between it and the number of tokens, and after that."""
        model = json.dumps(self.model)
        rest = ',"ignore_eos":true,"temperature":0,"stream":true,"stream_options":{"include_usage":true}}'
        if self.api is Api.CHAT:
            before, after = f'{{"model":{model},"messages":[{{"role":"user","content":"', '"}],"max_tokens":'
        else:
            before, after = f'{{"model":{model},"prompt":[', '],"max_tokens":'
        return before.encode(), after.encode(), rest.encode()
