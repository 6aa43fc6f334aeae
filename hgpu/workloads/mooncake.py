"""Mooncake traces (Qin et al., FAST'25): one JSON object a line.

`{"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [block, ...]}`,
where each hash stands for a block of 512 prompt tokens and everything before it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgpu.workloads.fields import bad_row, read_text, whole_tokens
from hgpu.workloads.trace import Trace, ordered_trace

BLOCK_TOKENS = 512


class _Row(NamedTuple):
    line: int
    time_ms: float
    input_tokens: int
    output_tokens: int
    hashes: tuple[int, ...] | None


def looks_like_mooncake(first_line: str) -> bool:
    """Whether a file's first line is, or begins, a JSON object with a Mooncake length field."""
    return first_line.lstrip().startswith("{") and any(
        f'"{field}"' in first_line for field in ("input_length", "output_length")
    )


def read_mooncake_jsonl(path: Path) -> Trace:
    """Return the trace in a Mooncake JSONL file, with its prefix block hashes if it has them.

    Every row is kept, those with a length of 0 too. Raises InputError.
    """
    rows = list(_rows(path))
    blocks = tuple(row.hashes for row in rows if row.hashes is not None)
    if blocks and len(blocks) != len(rows):
        line = next(row.line for row in rows if row.hashes is None)
        why = f"{len(blocks)} of {len(rows)} requests have hash_ids, and this one has none"
        raise bad_row(path, line, why, "give hash_ids for all requests or for none", "hash_ids")
    return ordered_trace(
        name=path.stem,
        times_s=np.array([row.time_ms for row in rows]) / 1e3,
        input_tokens=np.array([row.input_tokens for row in rows], dtype=np.int64),
        output_tokens=np.array([row.output_tokens for row in rows], dtype=np.int64),
        source=f"Mooncake trace, {path.name}",
        prefix_blocks=blocks or None,
        block_tokens=BLOCK_TOKENS if blocks else None,
    )


def _rows(path: Path) -> Iterator[_Row]:
    lines = read_text(path).rstrip().split("\n")
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        entry = _entry(path, line, text, last=line == len(lines))
        yield _Row(
            line,
            _milliseconds(path, line, _field(path, line, entry, "timestamp")),
            whole_tokens(path, line, "input_length", _field(path, line, entry, "input_length")),
            whole_tokens(path, line, "output_length", _field(path, line, entry, "output_length")),
            _hashes(path, line, entry.get("hash_ids")),
        )


def _entry(path: Path, line: int, text: str, last: bool) -> dict[str, Any]:
    """Return a line's JSON object."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        fix = (
            "the file was cut off: fetch it again, or remove this line"
            if last
            else "correct or remove this row"
        )
        raise bad_row(path, line, f"it isn't whole JSON: {error}", fix) from error
    if not isinstance(entry, dict):
        raise bad_row(path, line, f"it is a JSON {type(entry).__name__}", "give one JSON object a line")
    return entry


def _field(path: Path, line: int, entry: dict[str, Any], field: str) -> object:
    if field not in entry:
        why = f"the row has {', '.join(map(str, entry))[:200] or 'no fields'}"
        raise bad_row(path, line, why, f"add {field} to the row", field)
    return entry[field]


def _milliseconds(path: Path, line: int, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
        return float(value)
    why = f"{str(value)[:40]!r} isn't a time in ms from 0"
    raise bad_row(path, line, why, "correct or remove this row", "timestamp")


def _hashes(path: Path, line: int, value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        why = f"{str(value)[:40]!r} isn't a list of whole numbers"
        raise bad_row(path, line, why, "correct or remove this row", "hash_ids")
    return tuple(value)
