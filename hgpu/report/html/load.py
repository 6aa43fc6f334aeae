"""The page of a load test: what the server held, and whether the client can be believed."""

from collections.abc import Sequence

from hgpu.artifacts.payloads.load import LoadPayload, LoadPoint, Spread
from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.report.html.blocks import Block, Chart, Figure, Lines, Outcome, Page, Section, Table
from hgpu.report.html.draw import Series, Target, lines
from hgpu.report.html.load_requests import PointRequests, requests_of
from hgpu.report.html.load_time import distribution_charts, time_charts
from hgpu.report.output import ms
from hgpu.report.simulation import LABELS

SOURCE = "measured by the client"


def load_page(artifact: Artifact[LoadPayload], related: Related) -> Page:
    """Draw a load test point by point; points that aren't valid are shown hollow, with their reasons."""
    payload = artifact.payload
    outcome, verdict = _verdict(payload.points)
    return Page(
        title=f"{payload.model} at {payload.url}",
        lead=f"load test, {payload.api}; lengths {payload.lengths}; {objectives(payload)}",
        verdict=verdict,
        outcome=outcome,
        figures=_figures(payload.points),
        sections=[
            Section("Points", [_points(payload.points), *_reasons(payload.points)]),
            Section("Goodput and attainment", _curves(payload)),
            Section("Latencies", _latencies(payload.points)),
            Section("Distributions, and over time", _requests(payload.points, requests_of(artifact))),
            Section("The client itself", _client(payload)),
            Section("What it may be compared with", [_comparability(payload)]),
        ],
    )


def objectives(payload: LoadPayload) -> str:
    """Return the objectives in a sentence."""
    slo = payload.slo
    rows = [("TTFT", slo.ttft), ("TPOT", slo.tpot), ("end-to-end", slo.e2e)] if slo else []
    said = [f"{name} ≤ {o.limit_s * 1e3:g} ms at p{o.percentile:g}" for name, o in rows if o]
    return ", ".join(said) or "no objective"


def point_name(point: LoadPoint) -> str:
    """Return a point's name, marked where it isn't valid."""
    return point.name if point.validity.valid else f"{point.name} ✗"


def _verdict(points: Sequence[LoadPoint]) -> tuple[Outcome, str]:
    valid = sum(point.validity.valid for point in points)
    if valid == len(points):
        return "open", f"All {valid} points are valid." if valid > 1 else "The point is valid."
    return "bad", f"{len(points) - valid} of {len(points)} points aren't valid and can't be believed."


def _figures(points: Sequence[LoadPoint]) -> list[Figure]:
    valid = [point for point in points if point.validity.valid]
    if not valid:
        return []
    good = [point.goodput_rps for point in valid if point.goodput_rps is not None]
    fastest = max(valid, key=lambda point: point.output_tok_per_s)
    errors, requests = sum(p.errors for p in valid), sum(p.requests for p in valid)
    return [
        Figure("highest goodput", f"{max(good):.3g}" if good else "-", "requests/s", SOURCE),
        Figure("highest output", f"{fastest.output_tok_per_s:,.0f}", "tokens/s", f"{SOURCE}, {fastest.name}"),
        Figure("errors", f"{errors:,}", f"of {requests:,} requests", SOURCE),
    ]


def _points(points: Sequence[LoadPoint]) -> Table:
    heads = [
        "point", "arrivals", ">target, requests/s", ">in flight", ">sent, requests/s", ">requests", ">errors",
        ">output, tokens/s", ">goodput, requests/s", ">harness lag p99, ms",
    ]  # fmt: skip
    rows = [
        [
            point_name(p), p.arrivals, _known(p.target_rps), _known(p.concurrency), f"{p.achieved_rps:.3g}",
            f"{p.requests:,}", _errors(p), f"{p.output_tok_per_s:,.1f}", _known(p.goodput_rps),
            ms(p.harness_lag_p99_s),
        ]
        for p in points
    ]  # fmt: skip
    return Table("Points of load", heads, rows, SOURCE)


def _errors(point: LoadPoint) -> str:
    kinds = ", ".join(f"{count}× {kind}" for kind, count in sorted(point.error_kinds.items()))
    return f"{point.errors:,}" + (f" ({kinds})" if kinds else "")


def _known(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _reasons(points: Sequence[LoadPoint]) -> list[Block]:
    said = [f"{point_name(point)}: {reason}" for point in points for reason in point.validity.reasons]
    return [Lines(said)] if said else []


def load_of(points: Sequence[LoadPoint]) -> tuple[str, list[float]]:
    """Return what the load of the points is called, and how much each has."""
    if points and all(point.target_rps is not None for point in points):
        return "target, requests/s", [point.target_rps or 0.0 for point in points]
    if points and all(point.concurrency is not None for point in points):
        return "requests in flight", [float(point.concurrency or 0) for point in points]
    return "sent, requests/s", [point.achieved_rps for point in points]


def _curves(payload: LoadPayload) -> list[Block]:
    label, loads, points = _by_load(payload.points)
    names = list(dict.fromkeys(name for point in points for name in point.attainment))
    if not names:
        return [Lines(["Without an objective there is no goodput."])]
    rows = [
        [point_name(p), f"{load:g}", _known(p.goodput_rps), *(_share(p.attainment.get(n)) for n in names)]
        for load, p in zip(loads, points, strict=True)
    ]
    heads = ["point", f">{label}", ">goodput, requests/s", *(f">{_label(name)}" for name in names)]
    data = Table("goodput and attainment", heads, rows)
    note = "Hollow points aren't valid." if any(not p.validity.valid for p in points) else ""
    good = _series("goodput", loads, points, [p.goodput_rps for p in points])
    sent = _series("sent", loads, points, [p.achieved_rps for p in points])
    kept = [
        _series(_label(name), loads, points, [_percent(p.attainment.get(name)) for p in points])
        for name in names
    ]
    shares = lines(kept, label, "requests that keep it, %", _promises(payload), y_most=100.0)
    return [
        Chart("Goodput, requests/s", lines([good, sent], label, "requests/s"), data, SOURCE, note),
        Chart("Attainment, % of all requests", shares, data, SOURCE, note),
    ]


def _by_load(points: Sequence[LoadPoint]) -> tuple[str, list[float], list[LoadPoint]]:
    """Return what the load is called, and loads and points with the lightest first."""
    label, loads = load_of(points)
    pairs = sorted(zip(loads, points, strict=True), key=lambda pair: pair[0])
    return label, [load for load, _ in pairs], [point for _, point in pairs]


def _label(objective: str) -> str:
    return LABELS.get(objective, objective)


def _promises(payload: LoadPayload) -> list[Target]:
    slo = payload.slo
    promised = sorted({o.percentile for o in (slo.ttft, slo.tpot, slo.e2e) if o}) if slo else []
    return [Target(f"promised: {percentile:g} %", percentile) for percentile in promised]


def _series(
    name: str, loads: Sequence[float], points: Sequence[LoadPoint], values: Sequence[float | None]
) -> Series:
    rows = [
        (load, value, not p.validity.valid)
        for load, p, value in zip(loads, points, values, strict=True)
        if value is not None
    ]
    return Series(name, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _latencies(points: Sequence[LoadPoint]) -> list[Block]:
    fields = ("ttft_s", "ttft_from_send_s", "tpot_s", "itl_s", "e2e_s")
    names = ("TTFT", "TTFT from the actual send", "TPOT", "between tokens", "end-to-end")
    rows = [
        [point_name(point), name, *_spread(spread)]
        for point in points
        for name, field in zip(names, fields, strict=True)
        if (spread := getattr(point, field)) is not None
    ]
    heads = ["point", "latency", ">mean", ">p50", ">p90", ">p95", ">p99"]
    note = "From the intended send on, where nothing else is said; requests that failed have none."
    return [Table("Latencies, ms", heads, rows, SOURCE, note)]


def _spread(spread: Spread) -> list[str]:
    return [ms(value) for value in (spread.mean, spread.p50, spread.p90, spread.p95, spread.p99)]


def _requests(points: Sequence[LoadPoint], requests: Sequence[PointRequests]) -> list[Block]:
    if not requests:
        return [Lines(["The single requests weren't kept."])]
    names = {number: point_name(point) for number, point in enumerate(points)}
    return [*distribution_charts(requests, names, SOURCE), *time_charts(requests, names, SOURCE)]


def _client(payload: LoadPayload) -> list[Block]:
    label, loads, points = _by_load(payload.points)
    rows = [[point_name(p), ms(p.harness_lag_p50_s), ms(p.harness_lag_p99_s)] for p in points]
    data = Table("harness lag, ms", ["point", ">p50", ">p99"], rows, SOURCE)
    series = [
        _series("p50", loads, points, [p.harness_lag_p50_s * 1e3 for p in points]),
        _series("p99", loads, points, [p.harness_lag_p99_s * 1e3 for p in points]),
    ]
    drawn = lines(series, label, "sent later than intended, ms")
    return [Chart("Harness lag, ms", drawn, data, SOURCE), _selftest(payload)]


def _selftest(payload: LoadPayload) -> Block:
    tested = payload.selftest
    if tested is None:
        return Lines(["The client wasn't tested on its own (hgpu bench selftest)."])
    rows = [
        ["requests/s and core that it can send", f"{tested.requests_per_s_and_core:,.0f}"],
        ["TTFT that it adds, p50, ms", f"{tested.added_ttft_p50_s * 1e3:.2f}"],
        ["TTFT that it adds, p99, ms", f"{tested.added_ttft_p99_s * 1e3:.2f}"],
    ]
    note = f"On {tested.machine}, against the bundled mock server."
    return Table("Selftest of the client", ["what", ">value"], rows, "measured", note)


def _comparability(payload: LoadPayload) -> Table:
    rows = [[key, value or "unknown"] for key, value in sorted(payload.comparability.items())]
    return Table(
        "Same in every load test that it may be compared with", ["what", "here"], rows, "as recorded"
    )
