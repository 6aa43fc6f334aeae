"""The charts of the report: bars, lines, scatters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from hgpu.report.html.theme import BAD, DASHES, INK, MARKERS, MUTED, PAPER, SERIES, shortened, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR_IN = 0.34  # height of a bar and the gap below it
NAME, LEGEND = 28, 56  # letters that there is room for beside an axis and in a legend


@dataclass(frozen=True, slots=True)
class Bar:
    """A named amount, the text at its end, and whether it is the one that the page is about."""

    name: str
    value: float
    text: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """A line or a cloud of points; points that are `hollow` aren't to be believed."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    hollow: Sequence[bool] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A horizontal line that something should keep to."""

    name: str
    y: float


Scale = Literal["linear", "log"]


def bars(rows: Sequence[Bar], x_label: str) -> Markup:
    """Draw a horizontal bar a row, in their order from the top."""

    def draw(axes: "Axes") -> None:
        colours = [SERIES[0] if row.chosen else MUTED for row in rows]
        axes.barh(range(len(rows)), [row.value for row in rows], height=0.6, color=colours)
        axes.set_yticks(range(len(rows)), [shortened(row.name, NAME) for row in rows], color=INK)
        for place, row in enumerate(rows):
            axes.annotate(
                row.text, (row.value, place), (4, 0), textcoords="offset points", va="center", color=INK
            )
        axes.invert_yaxis()
        axes.set_xlim(0, max([row.value for row in rows if row.value > 0], default=1.0))
        axes.set_xlabel(x_label)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")

    return svg_of(draw, 0.7 + _BAR_IN * max(len(rows), 2))


def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    targets: Sequence[Target] = (),
    x_scale: Scale = "linear",
    y_scale: Scale = "linear",
    marked: bool = True,
    y_most: float | None = None,
) -> Markup:
    """Draw a line a series, told apart by colour, dashes and marker; targets are thin dashed lines.

    The axis ends just above `y_most` where the values can't pass it.
    """

    def draw(axes: "Axes") -> None:
        for number, one in enumerate(series):
            _line(axes, one, number, marked)
        for target in targets:
            axes.axhline(
                target.y, color=BAD, linewidth=1, linestyle=(0, (4, 3)), label=shortened(target.name, LEGEND)
            )
        axes.set(xlabel=x_label, ylabel=y_label, xscale=x_scale, yscale=y_scale)
        if y_most is not None:
            axes.set_ylim(top=y_most + 0.04 * (y_most - axes.get_ylim()[0]))
        _ticks(axes)
        axes.grid()

    return svg_of(draw)


def scatter(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    reference: Literal["diagonal", "zero", "none"] = "none",
    y_scale: Scale = "log",
) -> Markup:
    """Draw a cloud a series over a logarithmic axis; the reference is where points would be best."""

    def draw(axes: "Axes") -> None:
        for number, one in enumerate(series):
            axes.plot(
                one.x, one.y, linestyle="none", markersize=4, alpha=0.7, label=shortened(one.name, LEGEND),
                color=SERIES[number % len(SERIES)], marker=MARKERS[number % len(MARKERS)],
            )  # fmt: skip
        if reference == "diagonal":
            ends = [min(min(one.x) for one in series), max(max(one.x) for one in series)]
            axes.plot(ends, ends, color=MUTED, linewidth=1)
        elif reference == "zero":
            axes.axhline(0, color=MUTED, linewidth=1)
        axes.set(xlabel=x_label, ylabel=y_label, xscale="log", yscale=y_scale)
        _ticks(axes)
        axes.grid()

    return svg_of(draw)


def _line(axes: "Axes", one: Series, number: int, marked: bool) -> None:
    colour = SERIES[number % len(SERIES)]
    dash = DASHES[number // len(SERIES) % len(DASHES)]
    marker = MARKERS[number % len(MARKERS)] if marked else None
    axes.plot(
        one.x,
        one.y,
        color=colour,
        linestyle=dash,
        marker=marker,
        linewidth=1.6,
        label=shortened(one.name, LEGEND),
    )
    doubtful = [place for place, hollow in enumerate(one.hollow) if hollow]
    axes.plot(
        [one.x[place] for place in doubtful],
        [one.y[place] for place in doubtful],
        linestyle="none", marker=marker, color=colour, markerfacecolor=PAPER, markersize=8,
    )  # fmt: skip


def _ticks(axes: "Axes") -> None:
    """Write plain numbers along logarithmic axes, as many as there is room for."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() != "log":
            continue
        narrow, wide = high < 8 * low, high > 500 * low
        axis.set_major_locator(MaxNLocator(5) if narrow else LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axis.set_minor_formatter(NullFormatter())
