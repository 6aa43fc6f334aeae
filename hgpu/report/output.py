"""Where things are printed: data on stdout, notes and progress on stderr."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 140


def console() -> Console:
    """Return the console for data; wide where stdout is no terminal, so that nothing is cut."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=1, default=_plain, allow_nan=False))


def note(text: str) -> None:
    """Say something beside the data, on stderr."""
    Console(
        stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH, highlight=False, markup=False
    ).print(text, style="dim", soft_wrap=True)


def table(title: str, *columns: str) -> Table:
    """Return a plain table; a column whose name begins with '>' is aligned to the right."""
    made = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    for column in columns:
        made.add_column(
            column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    return made


def ms(seconds: float) -> str:
    """Render seconds as milliseconds."""
    return f"{seconds * 1e3:.1f}" if seconds < 10 else f"{seconds * 1e3:,.0f}"


def usd(amount: float) -> str:
    """Render dollars, with more digits where they are small."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.4f}".rstrip("0").ljust(4, "0")


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
