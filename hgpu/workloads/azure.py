"""Azure LLM inference traces: CSV with TIMESTAMP, ContextTokens, GeneratedTokens.

The 2023 release (Patel et al., Splitwise, ISCA'24) has local timestamps with seven fractional
digits; the 2024 release (DynamoLLM) adds an offset such as `+00:00`. Both are read, and a
timestamp without an offset counts as UTC.
"""

import csv
import io
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

from hgpu.core.errors import InputError
from hgpu.workloads.fields import bad_row, read_text, whole_tokens
from hgpu.workloads.trace import Trace, ordered_trace

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)


def looks_like_azure(first_line: str) -> bool:
    """Whether a file's first line is a header with one of the Azure length columns."""
    names = [name.strip() for name in first_line.split(",")]
    return any(column in names for column in COLUMNS[1:])


def read_azure_csv(path: Path) -> Trace:
    """Return the trace in an Azure CSV file.

    Every row is kept. GeneratedTokens 0 (a request that was cancelled or only prefilled) stays 0:
    its prompt was work, so the reader has no right to drop it, and the histogram counts it as
    outside the buckets. A last line that lost whole fields is refused; one that lost only the
    last digits of its last number can't be told from a whole one. Raises InputError.
    """
    rows = list(_rows(path))
    start_ns = min(ns for ns, _, _ in rows)
    return ordered_trace(
        name=path.stem,
        times_s=np.array([(ns - start_ns) / 1e9 for ns, _, _ in rows]),
        input_tokens=np.array([row[1] for row in rows], dtype=np.int64),
        output_tokens=np.array([row[2] for row in rows], dtype=np.int64),
        source=f"Azure LLM inference trace, {path.name}",
    )


def _rows(path: Path) -> Iterator[tuple[int, int, int]]:
    """Yield (time in ns, input tokens, output tokens) a row."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows = (row for row in reader if not _is_blank(row))
    line = 0
    try:
        header = next(rows)
        time_at, input_at, output_at = _positions(path, reader.line_num, header)
        for row in rows:
            line = reader.line_num
            if len(row) != len(header):
                why = f"it has {len(row)} fields and the header {len(header)}"
                fix = (
                    "correct or remove this row; if it is the last one, the file was cut off: fetch it again"
                )
                raise bad_row(path, line, why, fix)
            yield (
                _nanoseconds(path, line, row[time_at]),
                whole_tokens(path, line, COLUMNS[1], row[input_at]),
                whole_tokens(path, line, COLUMNS[2], row[output_at]),
            )
    except csv.Error as error:
        raise bad_row(path, reader.line_num, str(error), "correct the quoting of this row") from error
    if not line:
        raise InputError(f"trace {path} is empty", "it has a header and no rows", "give at least one request")


def _is_blank(row: list[str]) -> bool:
    return len(row) < 2 and not "".join(row).strip()


def _positions(path: Path, line: int, header: list[str]) -> tuple[int, ...]:
    """Return where the three columns stand."""
    names = [name.strip() for name in header]
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        why = f"the header has {', '.join(names)[:200]}"
        raise bad_row(path, line, why, f"add the column, or name it as in {','.join(COLUMNS)}", missing[0])
    return tuple(names.index(column) for column in COLUMNS)


def _nanoseconds(path: Path, line: int, text: str) -> int:
    """Return nanoseconds since 1970, exactly: a double could not hold the seventh digit."""
    match = _TIMESTAMP.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError("it doesn't have the form 2023-11-16 18:17:03.9799600, with or without +00:00")
        day, clock, fraction, offset = match.groups()
        whole = datetime.fromisoformat(f"{day}T{clock}{offset or '+00:00'}")
    except ValueError as error:
        why = f"{text[:40]!r} isn't a timestamp: {error}"
        raise bad_row(path, line, why, "correct or remove this row", COLUMNS[0]) from error
    return int(whole.timestamp()) * 10**9 + int((fraction or "").ljust(9, "0"))
