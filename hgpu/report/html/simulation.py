"""The page of a simulation: how much load the fleet holds, and what a lost machine does to it."""

from hgpu.artifacts.payloads.simulation import RunRow, SimulationPayload, Spread
from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.report.html.blocks import Block, Chart, Figure, Lines, Outcome, Page, Section, Table, from_terminal
from hgpu.report.html.draw import Bar, Series, Target, bars, lines
from hgpu.report.output import usd
from hgpu.report.simulation import (
    attainment_table,
    case_of,
    latencies_table,
    objective_text,
    pools_table,
    remarks,
    share_text,
)


def simulation_page(artifact: Artifact[SimulationPayload], related: Related) -> Page:
    """Draw attainment and latencies against the rate, and what each pool did."""
    payload = artifact.payload
    source = f"simulated, latencies {payload.provenance}"
    outcome, verdict = _verdict(payload)
    said = [line for run in payload.runs for line in remarks(run)]
    return Page(
        title=payload.service,
        lead=f"{payload.arrivals}; engines by {payload.balance}; seed {payload.seed}",
        verdict=verdict,
        outcome=outcome,
        figures=_figures(payload, source),
        sections=[
            Section(
                "Attainment",
                [
                    *attainment_chart(payload, source),
                    from_terminal(attainment_table(payload), source),
                    *([Lines(said)] if said else []),
                ],
            ),
            Section(
                "Latencies",
                [*_latency_charts(payload, source), from_terminal(latencies_table(payload), source)],
            ),
            Section("Pools", [from_terminal(pools_table(payload), source)]),
        ],
    )


def attainment_chart(payload: SimulationPayload, source: str) -> list[Block]:
    """Draw what part of the requests keep each objective against the rate, and without a machine."""
    whole, lost = _whole(payload), [run for run in payload.runs if run.lost]
    rates = [run.rate_rps for run in whole]
    objectives = whole[0].objectives if whole else []
    series = [
        Series(objective_text(row), rates, [100 * run.objectives[place].attainment for run in whole])
        for place, row in enumerate(objectives)
    ]
    targets = [
        Target(f"promised: {percentile:g} %", percentile)
        for percentile in sorted({row.percentile for row in objectives})
    ]
    data = from_terminal(attainment_table(payload), source)
    blocks: list[Block] = []
    if whole:
        drawn = lines(series, "requests/s", "requests that keep it, %", targets, y_most=100.0)
        blocks.append(Chart("Attainment against rate, % of all requests", drawn, data, source))
    if lost:
        rows = [Bar(case_of(run), 100 * run.goodput_share, share_text(run.goodput_share)) for run in lost]
        title = "Requests that keep every objective with one machine lost, %"
        blocks.append(Chart(title, bars(rows, "% of all requests"), data, source))
    return blocks


def _whole(payload: SimulationPayload) -> list[RunRow]:
    """Return the runs of the whole fleet, slowest first."""
    return sorted((run for run in payload.runs if not run.lost), key=lambda run: run.rate_rps)


def _verdict(payload: SimulationPayload) -> tuple[Outcome, str]:
    """Return the outcome and the sentence that says it: the promise is for the planned rate."""
    planned = [run for run in _whole(payload) if run.multiplier == 1]
    if not planned:
        return "open", "The planned rate itself wasn't simulated."
    if planned[0].met:
        return "good", "At the planned rate the fleet keeps every objective."
    return "bad", "At the planned rate the fleet misses an objective."


def _figures(payload: SimulationPayload, source: str) -> list[Figure]:
    held = [run for run in _whole(payload) if run.met]
    tried = [run for run in _whole(payload) if run.multiplier == 1] or _whole(payload) or payload.runs[:1]
    run = tried[0]
    cost = run.usd_per_million_output_tokens
    return [
        Figure("highest rate that held", f"{held[-1].rate_rps:g}" if held else "none", "requests/s", source),
        Figure(f"kept all at {case_of(run)}", share_text(run.goodput_share), "of all requests", source),
        Figure(f"output at {case_of(run)}", "-" if cost is None else usd(cost), "USD/million tokens", source),
    ]


def _latency_charts(payload: SimulationPayload, source: str) -> list[Chart]:
    charts = []
    whole = _whole(payload)
    names = {"TTFT": "ttft_s", "TPOT": "tpot_s", "End-to-end latency": "e2e_s", "Queueing": "queue_s"}
    for name, field in names.items():
        spreads: list[tuple[RunRow, Spread]] = [
            (run, spread) for run in whole if (spread := getattr(run, field)) is not None
        ]
        if not spreads:
            continue
        rates = [run.rate_rps for run, _ in spreads]
        series = [
            Series(p, rates, [getattr(spread, p) * 1e3 for _, spread in spreads])
            for p in ("p50", "p90", "p99")
        ]
        rows = [
            [case_of(run), f"{run.rate_rps:g}", *(f"{value * 1e3:.1f}" for value in _values(spread))]
            for run, spread in spreads
        ]
        data = Table(
            f"{name}, ms", ["run", ">requests/s", ">mean", ">p50", ">p90", ">p95", ">p99"], rows, source
        )
        charts.append(
            Chart(f"{name} against rate, ms", lines(series, "requests/s", "ms", y_scale="log"), data, source)
        )
    return charts


def _values(spread: Spread) -> tuple[float, ...]:
    return (spread.mean, spread.p50, spread.p90, spread.p95, spread.p99)
