"""BurstGPT traces (Wang et al., KDD'25): CSV with Timestamp (s), Request tokens, Response tokens.

Other columns (Model, Total tokens, Log Type, and Session ID and Elapsed time in later releases) are read
over. A response of 0 tokens is a request that failed; it stays, as in the other formats.
"""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hgpu.core.errors import InputError
from hgpu.workloads.fields import bad_row, read_text, whole_tokens
from hgpu.workloads.trace import Trace, ordered_trace

COLUMNS = ("Timestamp", "Request tokens", "Response tokens")


def looks_like_burstgpt(first_line: str) -> bool:
    """Whether a file's first line is a header with one of BurstGPT's length columns."""
    return any(name.strip() in COLUMNS[1:] for name in first_line.split(","))


def read_burstgpt_csv(path: Path) -> Trace:
    """Return the trace in a BurstGPT CSV file, every row of it. Raises InputError."""
    rows = list(_rows(path))
    if not rows:
        raise InputError(f"trace {path} is empty", "it has a header and no rows", "give at least one request")
    return ordered_trace(
        name=path.stem,
        times_s=np.array([row[0] for row in rows]),
        input_tokens=np.array([row[1] for row in rows], dtype=np.int64),
        output_tokens=np.array([row[2] for row in rows], dtype=np.int64),
        source=f"BurstGPT trace, {path.name}",
    )


def _rows(path: Path) -> Iterator[tuple[float, int, int]]:
    """Yield (time in s, input tokens, output tokens) a row."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in COLUMNS if name not in reader.fieldnames]
        if missing:
            why = f"the header has {', '.join(reader.fieldnames)[:200]}"
            raise bad_row(path, 1, why, "add the column, or name it as BurstGPT does", missing[0])
        for row in reader:
            line = reader.line_num
            if None in row or None in row.values():
                raise bad_row(path, line, "it has more or fewer fields than the header", "correct this row")
            yield (
                _seconds(path, line, row[COLUMNS[0]]),
                whole_tokens(path, line, COLUMNS[1], row[COLUMNS[1]]),
                whole_tokens(path, line, COLUMNS[2], row[COLUMNS[2]]),
            )
    except csv.Error as error:
        raise bad_row(path, reader.line_num, str(error), "correct the quoting of this row") from error


def _seconds(path: Path, line: int, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e12:
        raise bad_row(
            path, line, f"{text[:40]!r} isn't a time in s from 0", "correct or remove this row", COLUMNS[0]
        )
    return seconds
