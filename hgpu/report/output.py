"""Where things are printed: data on stdout, notes and progress on stderr."""

import json
import sys
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 140


class DataConsole(Console):
    """A console on which a table that is too wide folds between words only: half a number misleads.

    Where even that is too wide, the lines of the table are longer than the terminal's, and it wraps them.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `rich.console.Console.print` does."""
        for made in objects:
            if isinstance(made, Table):
                keep_words(made)
                options = {"crop": False, **options}
        super().print(*objects, **options)


def keep_words(made: Table) -> None:
    """Make each column of a table as wide as its longest word; one of numbers, as its longest cell."""
    for column in made.columns:
        cells = [_plain_text(cell) for cell in column.cells]
        kept = cells if column.justify == "right" else [word for cell in cells for word in cell.split()]
        column.min_width = max(map(cell_len, [*_plain_text(column.header).split(), *kept]), default=0)


def _plain_text(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain


def console() -> Console:
    """Return the console for data; wide where stdout is no terminal, so that nothing is cut."""
    return DataConsole(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


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


def rps(rate: float) -> str:
    """Render requests a second; below 1 with three digits that count, so that a rare request isn't none."""
    return f"{rate:,.2f}" if rate >= 1 else f"{rate:.3g}"


def usd(amount: float) -> str:
    """Render dollars, with more digits where they are small."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.4f}".rstrip("0").ljust(4, "0")


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)
