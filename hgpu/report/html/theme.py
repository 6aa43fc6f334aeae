"""Drawings as inline SVG that follow the page's colours, light or dark.

matplotlib knows no CSS variables. So shapes are drawn in stand-in colours that nothing else uses, and the SVG
gets the variables in their place. Text stays text: it is searched, read aloud and set in the page's font.
"""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, RULE, BAD, PAPER = "#010101", "#010102", "#010103", "#010104", "#010105"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005", "#0a0006")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P")
_VARIABLES = {
    INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)", BAD: "var(--bad)", PAPER: "var(--paper)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)},
}  # fmt: skip
_WIDTH_IN = 5.0  # 360 units: as wide as a phone, so that text of 10 units stays readable there
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "hgpu", "text.parse_math": False, "font.size": 10,
    "axes.edgecolor": RULE, "axes.labelcolor": INK, "text.color": INK, "grid.linewidth": 0.6,
    "grid.color": RULE, "xtick.color": RULE, "ytick.color": RULE,
    "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False,
    "axes.facecolor": "none", "figure.facecolor": "none", "legend.fontsize": 9, "lines.markersize": 5,
}  # fmt: skip


def svg_of(draw: Callable[["Axes"], None], height_in: float = 3.2) -> Markup:
    """Return what `draw` puts on the axes, as an SVG element for inside a page.

    Where it labels more than one series, a legend stands below.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        draw(axes)
        labels = axes.get_legend_handles_labels()[1]
        if len(labels) > 1:
            columns = 3 if max(map(len, labels)) < 14 else 1 if max(map(len, labels)) > 30 else 2
            figure.legend(loc="outside lower center", ncols=columns)
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return Markup(_cleaned(stream.getvalue()))  # matplotlib escapes the text inside


def shortened(text: str, most: int) -> str:
    """Return a name that fits into a drawing; its whole stands in the data below."""
    return text if len(text) <= most else text[: most - 1] + "…"


def numbered(svg: Markup, number: int) -> Markup:
    """Return the SVG with ids of its own, so that several can stand in a page."""
    text = re.sub(r'(<[^<>]* id=")', rf"\g<1>c{number}-", str(svg))
    text = re.sub(r'(<[^<>]* xlink:href="#)', rf"\g<1>c{number}-", text)
    return Markup(re.sub(r'(<[^<>]* clip-path="url\(#)', rf"\g<1>c{number}-", text))


def _cleaned(document: str) -> str:
    """Drop what a page doesn't need: prolog, namespaces, sizes, fonts, unused ids and spare digits."""
    text = document[document.index("<svg") :]
    text = re.sub(r"<svg [^>]*(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1>", text, count=1)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', text))
    return re.sub(r"<[^<>]+>", lambda tag: _tag(tag[0], used), text)


def _tag(tag: str, used: set[str]) -> str:
    tag = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"#0a000[1-6]|#01010[1-5]", lambda found: _VARIABLES.get(found[0], found[0]), tag)
    return re.sub(r"(\.\d\d)\d+", r"\1", tag)
