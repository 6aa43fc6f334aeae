"""Pools and their URLs, as the command line or a file gives them."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from hgpu.core.errors import InputError

_PREFILL = "prefill "


def urls_of(words: Iterable[str]) -> dict[str, str]:
    """Return the URL of each `NAME=URL`. Raises InputError for other words, and for a name twice."""
    urls: dict[str, str] = {}
    for word in words:
        name, _, url = word.partition("=")
        if name in urls or not _usable(url):
            raise InputError(
                f"bad pool '{word}'",
                "the name was given before" if name in urls else "it isn't NAME=http://HOST:PORT",
                "give NAME=URL once for each pool of the plan",
            )
        urls[name] = url
    return urls


def words_of(path: Path) -> tuple[list[str], list[str]]:
    """Return a file's `NAME=URL` lines: those of pools, and those of prefill engines behind `prefill `.

    Empty lines and those that begin with # say nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"can't read the pools' URLs from {path}", why, "see --pools") from error
    words = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    prefills = [word.removeprefix(_PREFILL).lstrip() for word in words if word.startswith(_PREFILL)]
    return [word for word in words if not word.startswith(_PREFILL)], prefills


def _usable(url: str) -> bool:
    try:
        where = urlsplit(url)
        return where.scheme == "http" and bool(where.hostname) and where.path in ("", "/") and where.port != 0
    except ValueError:  # a port that is none
        return False
