"""Charts of single requests: how latencies are distributed, and how they go over time."""

from collections.abc import Mapping, Sequence

import numpy as np

from hgpu.report.html.blocks import Chart, Table
from hgpu.report.html.draw import Series, lines
from hgpu.report.html.load_requests import Array, PointRequests, distribution, windows

MOST_POINTS = 6
LISTED = (0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def distribution_charts(
    requests: Sequence[PointRequests], names: Mapping[int, str], source: str
) -> list[Chart]:
    """Draw the distribution of TTFT and of TPOT, a line a point."""
    shown, note = _spread_out(requests)
    made = []
    for label, field in (("TTFT", "ttft_s"), ("TPOT", "tpot_s")):
        lists = [(_name(names, r), distribution(getattr(r, field))) for r in shown]
        series = [
            Series(name, [1e3 * s for s, _ in rows], [100 * share for _, share in rows])
            for name, rows in lists
            if rows
        ]
        if not series:
            continue
        drawn = lines(
            series, f"{label}, ms", "requests at most so long, %", x_scale="log", marked=False, y_most=100.0
        )
        rows = [[_name(names, r), *_quantiles(getattr(r, field))] for r in requests]
        heads = ["point", ">requests", *(f">p{100 * q:g}" for q in LISTED)]
        data = Table(f"{label}, ms", heads, rows, source)
        made.append(Chart(f"Distribution of {label}, ms", drawn, data, source, note))
    return made


def time_charts(requests: Sequence[PointRequests], names: Mapping[int, str], source: str) -> list[Chart]:
    """Draw percentiles of TTFT over the time of each point."""
    shown, note = _spread_out(requests)
    made = []
    for one in shown:
        rows = windows(one)
        if not rows:
            continue
        middle = [(row.start_s + row.end_s) / 2 for row in rows]
        series = [
            Series("p50", middle, [row.p50_s * 1e3 for row in rows]),
            Series("p90", middle, [row.p90_s * 1e3 for row in rows]),
            Series("p99", middle, [row.p99_s * 1e3 for row in rows]),
        ]
        cells = [
            [f"{w.start_s:.1f}-{w.end_s:.1f}", str(w.requests), *_ms(w.p50_s, w.p90_s, w.p99_s)] for w in rows
        ]
        data = Table("TTFT over time, ms", ["due in, s", ">answered", ">p50", ">p90", ">p99"], cells, source)
        failed = f"{one.failed:,} requests failed and have no TTFT. " if one.failed else ""
        window = f"Windows of {rows[0].end_s - rows[0].start_s:.3g} s, by the intended send. "
        title = f"TTFT over time at {_name(names, one)}, ms"
        drawn = lines(series, "intended send, s", "TTFT, ms")
        made.append(Chart(title, drawn, data, source, (window + failed + note).strip()))
    return made


def _spread_out(requests: Sequence[PointRequests]) -> tuple[list[PointRequests], str]:
    """Return at most MOST_POINTS points, first and last among them, and what is left out."""
    if len(requests) <= MOST_POINTS:
        return list(requests), ""
    places = np.linspace(0, len(requests) - 1, MOST_POINTS).round().astype(int)
    return [requests[place] for place in places], f"{MOST_POINTS} of {len(requests)} points are drawn."


def _name(names: Mapping[int, str], requests: PointRequests) -> str:
    return names.get(requests.point, f"point {requests.point}")


def _quantiles(seconds: Array) -> list[str]:
    known = seconds[~np.isnan(seconds)]
    if not known.size:
        return ["0", *("-" for _ in LISTED)]
    return [f"{known.size:,}", *_ms(*np.quantile(known, LISTED).tolist())]


def _ms(*seconds: float) -> list[str]:
    return [f"{value * 1e3:.1f}" for value in seconds]
