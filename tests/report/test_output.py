"""Tables on terminals that are too narrow for them."""

import io

import pytest
from rich.text import Text

from hgpu.report.output import DataConsole, rps, table

CELLS = ("gcp/g2-standard-4", "1,234.56", "99.80 %", "2025-06-01")


@pytest.mark.parametrize("width", [20, 40, 60, 140])
def test_no_number_of_a_table_is_broken_or_cut(width: int) -> None:
    """A price of 2.12 that reads 2.1 is a lie."""
    made = table("rented", "offer", ">USD/h", ">TTFT \u2264 2000 ms at p99", "price of", ">[b]n[/b]")
    made.add_row(*CELLS, "[red]12345678[/red]")
    out = io.StringIO()
    DataConsole(file=out, width=width).print(made)
    for cell in (*CELLS, "12345678"):
        assert cell in out.getvalue()


def test_a_cell_of_plain_text_may_look_like_markup() -> None:
    made = table("", "name")
    made.add_row(Text("[/gpu]"))
    out = io.StringIO()
    DataConsole(file=out, width=20).print(made)
    assert "[/gpu]" in out.getvalue()


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.015, "0.015"), (0.00012, "0.00012"), (0.38, "0.38"), (0.0, "0"), (4.0, "4.00"), (1234.5, "1,234.50")],
)
def test_a_rare_request_does_not_read_as_none_or_another_rate(rate: float, text: str) -> None:
    assert rps(rate) == text


def test_words_fold_where_that_makes_a_table_fit() -> None:
    made = table("", "reason", ">n")
    made.add_row("its weights take 60.8 GiB of 22.5 GiB", "20")
    out = io.StringIO()
    DataConsole(file=out, width=24).print(made)
    assert max(map(len, out.getvalue().splitlines())) <= 24
