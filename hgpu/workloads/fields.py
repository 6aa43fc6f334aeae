"""Reading a trace file as text, and checking one field of one row."""

import re
from pathlib import Path

from hgpu.core.errors import InputError

# Lengths beyond this are damage, not requests; it also keeps sums far from int64 overflow.
MAX_TOKENS = 2**31 - 1

_MAGIC = {b"\x1f\x8b": "gzip", b"PAR1": "Parquet", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd"}
_DIGITS = re.compile(r"[0-9]+")


def read_text(path: Path) -> str:
    """Return a trace file's text; raise InputError if it is missing, empty or not text."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"can't read trace {path}", error.strerror or str(error), "check the path and its permissions"
        ) from error
    kind = next((name for magic, name in _MAGIC.items() if raw.startswith(magic)), None)
    if kind:
        raise InputError(f"trace {path} isn't text", f"it is a {kind} file", "unpack or export it first")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(path, f"byte {error.start} isn't UTF-8") from error
    if "\0" in text:
        raise _not_text(path, f"it has a NUL at character {text.index(chr(0))}")
    if not text.strip():
        raise InputError(f"trace {path} is empty", "it has no rows", "give a file with at least one request")
    return text


def _not_text(path: Path, why: str) -> InputError:
    return InputError(f"trace {path} isn't text", why, "give a trace of a known format in UTF-8")


def bad_row(path: Path, line: int, why: str, fix: str, field: str = "") -> InputError:
    """Return the error that points at a line, and at a field where one is to blame."""
    where = f"{path}, line {line}" + (f", field {field}" if field else "")
    return InputError(f"bad row in trace: {where}", why, fix)


def whole_tokens(path: Path, line: int, field: str, value: object) -> int:
    """Return a length in tokens from text or JSON; raise InputError unless it is a whole number >= 0."""
    number = _whole(value)
    if number is None or not 0 <= number <= MAX_TOKENS:
        raise bad_row(
            path,
            line,
            f"{str(value)[:40]!r} isn't a whole number of tokens from 0 to {MAX_TOKENS}",
            "correct or remove this row; rows are never skipped in silence",
            field,
        )
    return number


def _whole(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()) and len(value) < 20:
        return int(value)
    return None
