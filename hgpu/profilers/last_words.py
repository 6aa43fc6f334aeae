"""What a dead server's log says about its death."""

import re
from pathlib import Path

_TAIL_BYTES = 256 * 1024
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PREFIX = re.compile(r"^\([\w-]+ pid=\d+\)\s*(?:(?:ERROR|WARNING|INFO) \S+ \S+ \[[^\]]*\]\s*)?")
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt|Timeout)\b.*")
_POINTER = re.compile(r"root cause", re.IGNORECASE)  # "See root cause above": another line says it
_NOISE = re.compile(r"^(?:nanobind| - |warnings\.warn|DEBUG:|\^+$|File \")|resource_tracker")
_HEADLINE = re.compile(r"\d+ validation errors? for \w+$")  # pydantic says the cause on the next line
_IN_USE = re.compile(r"address already in use", re.IGNORECASE)


def last_words(log: Path) -> str:
    """Return the one line that tells best why the writer of `log` ended.

    That is the last exception line that doesn't merely point at another one, without colours and
    process prefixes; failing that, the last line that means anything.
    """
    lines = _lines(log)
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    causes = [line for line in exceptions if not _POINTER.search(line)]
    meaningful = [line for line in lines if not _NOISE.search(line)]
    for candidates in (causes, exceptions, meaningful):
        if candidates:
            return candidates[-1][:500]
    return "it wrote nothing to its log"


def blames_port(log: Path) -> bool:
    """Tell whether the writer of `log` found its port taken."""
    return any(_IN_USE.search(line) for line in _lines(log))


def _lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    plain = (_PREFIX.sub("", _ANSI.sub("", line).rstrip()) for line in text.splitlines())
    return _joined([line.strip() for line in plain if line.strip()])


def _joined(lines: list[str]) -> list[str]:
    whole: list[str] = []
    for line in lines:
        if whole and _HEADLINE.search(whole[-1]):
            whole[-1] += f": {line}"
        else:
            whole.append(line)
    return whole
