"""What a page is made of: plain data that a template turns into HTML.

    Page
    ├── Figure      a headline number with its unit and where it comes from
    └── Section     a heading with blocks under it
        ├── Table   rows of text; a Heat cell is shaded by its share
        ├── Chart   an SVG drawing with its data as a table
        ├── Lines   sentences
        └── Tree    nested values, folded

Everything is escaped where it is rendered, except the SVG of a chart, whose text is escaped by its drawer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from markupsafe import Markup
from rich.table import Table as TerminalTable


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline number; `source` is its provenance."""

    label: str
    value: str
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Heat:
    """A cell that is shaded by `share`, a part of 1."""

    share: float


Cell = str | Heat


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; a column whose name begins with '>' is aligned to the right."""

    shape: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    source: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, what it shows in a sentence, and its data."""

    shape: ClassVar[str] = "chart"
    title: str
    svg: Markup
    data: Table
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """Sentences, a paragraph each."""

    shape: ClassVar[str] = "lines"
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Tree:
    """Nested dicts, lists and scalars, as in JSON."""

    shape: ClassVar[str] = "tree"
    title: str
    value: Any


Block = Table | Chart | Lines | Tree
Outcome = Literal["good", "bad", "open"]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Page:
    """One artifact, told from the answer down to the details.

    `verdict` is the answer in a sentence; `outcome` says whether it is good news.
    """

    title: str
    lead: str
    verdict: str = ""
    outcome: Outcome = "open"
    figures: Sequence[Figure] = ()
    sections: Sequence[Section] = field(default_factory=list)


def from_terminal(table: TerminalTable, source: str = "", note: str = "", title: str = "") -> Table:
    """Return a table of the terminal's as a block, so that both print the same figures."""
    heads = [(">" if column.justify == "right" else "") + str(column.header) for column in table.columns]
    rows = list(zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True))
    return Table(title or str(table.title or "").strip(), heads, rows, source, note)
