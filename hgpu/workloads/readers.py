"""Trace formats: which there are, and how a file tells its own."""

from collections.abc import Callable
from pathlib import Path

from hgpu.core.errors import InputError, UnknownName
from hgpu.workloads.azure import looks_like_azure, read_azure_csv
from hgpu.workloads.burstgpt import looks_like_burstgpt, read_burstgpt_csv
from hgpu.workloads.fields import read_text
from hgpu.workloads.mooncake import looks_like_mooncake, read_mooncake_jsonl
from hgpu.workloads.sharegpt import looks_like_sharegpt, read_sharegpt_json
from hgpu.workloads.trace import Trace

READERS: dict[str, Callable[[Path], Trace]] = {
    "azure": read_azure_csv,
    "burstgpt": read_burstgpt_csv,
    "mooncake": read_mooncake_jsonl,
    "sharegpt": read_sharegpt_json,
}

_SIGNS: dict[str, Callable[[str], bool]] = {
    "azure": looks_like_azure,
    "burstgpt": looks_like_burstgpt,
    "mooncake": looks_like_mooncake,
    "sharegpt": looks_like_sharegpt,
}


def read_trace(path: str | Path, format: str | None = None) -> Trace:
    """Return the trace in a file, of a named format or of the one that its first line shows.

    Raises InputError with file, line and field for whatever can't be read, UnknownName for a
    format that isn't in READERS.
    """
    path = Path(path)
    name = format or detect_format(path)
    if name not in READERS:
        raise UnknownName("trace format", name, READERS)
    return READERS[name](path)


def detect_format(path: Path) -> str:
    """Return the name of a trace file's format, from the first line that isn't blank."""
    first_line = read_text(path).lstrip().split("\n", 1)[0]
    for name, matches in _SIGNS.items():
        if matches(first_line):
            return name
    raise InputError(
        f"unknown trace format: {path}, line 1",
        f"it begins with {first_line.strip()[:80]!r}",
        f"give one of {', '.join(sorted(READERS))} with its header or field names, or name the format",
    )
