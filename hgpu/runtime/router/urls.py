"""Pools and their URLs, as the command line gives them."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from hgpu.core.errors import InputError


def urls_of(words: Iterable[str]) -> dict[str, str]:
    """Return the URL of each `NAME=URL`. Raises InputError for other words, and for a name twice."""
    urls: dict[str, str] = {}
    for word in words:
        name, _, url = word.partition("=")
        if name in urls or not _usable(url):
            raise InputError(
                f"bad pool '{word}'",
                "the name was given before" if name in urls else "it isn't NAME=http://HOST:PORT",
                "give --pool NAME=URL once for each pool of the plan",
            )
        urls[name] = url
    return urls


def _usable(url: str) -> bool:
    try:
        where = urlsplit(url)
        return where.scheme == "http" and bool(where.hostname) and where.path in ("", "/") and where.port != 0
    except ValueError:  # a port that is none
        return False
