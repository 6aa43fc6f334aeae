"""The page of a plan: what to rent, what it costs against each single type, and why."""

from collections.abc import Sequence

from hgpu.artifacts.payloads.plan import Baseline, PlanPayload, RoutingRow
from hgpu.artifacts.payloads.simulation import SimulationPayload
from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.report.explanation import explanation_tables, proof_tables, proof_text
from hgpu.report.html.blocks import (
    Block,
    Chart,
    Figure,
    Heat,
    Lines,
    Outcome,
    Page,
    Section,
    Table,
    from_terminal,
)
from hgpu.report.html.draw import Bar, Series, bars, lines
from hgpu.report.html.simulation import attainment_chart
from hgpu.report.output import rps, usd
from hgpu.report.plan import (
    allocation_table,
    baselines_table,
    best_single,
    forbidden_table,
    gpu_labels,
    objectives_text,
    predictions_table,
    saving_text,
)
from hgpu.report.simulation import attainment_table

MOST_BUCKETS = 150
MOST_SIMULATIONS = 3


def plan_page(artifact: Artifact[PlanPayload], related: Related) -> Page:
    """Draw a plan, with the simulations of it that are in the store."""
    payload = artifact.payload
    outcome, verdict = _verdict(payload)
    return Page(
        title=payload.service,
        lead=objectives_text(payload),
        verdict=verdict,
        outcome=outcome,
        figures=_figures(payload),
        sections=[
            Section("Cost", [_cost_chart(payload), *_flips(payload)]),
            Section("Allocation", [_rented(payload)]),
            Section("Predictions", [from_terminal(predictions_table(payload), str(payload.provenance))]),
            Section("Attainment under load", _simulated(related)),
            Section("Routing", [_routing(payload)]),
            Section("Why", _why(payload)),
            Section("What can't be used", [_unusable(payload)]),
        ],
    )


def _verdict(payload: PlanPayload) -> tuple[Outcome, str]:
    """Return the outcome and the sentence that says it."""
    proof = payload.proof
    if proof is None:
        return "open", "This plan wasn't proved by a simulation of its fleet (hgpu plan --prove)."
    said = proof_text(proof)
    source = f"Its latencies are {payload.provenance}."
    return "good" if proof.held else "bad", f"{said[0].upper()}{said[1:]}. {source}"


def _figures(payload: PlanPayload) -> list[Figure]:
    saving, best = payload.savings_vs_best_single_type, best_single(payload.baselines)
    engines = sum(row.engines for row in payload.allocation)
    return [
        Figure("cost", usd(payload.cost_usd_per_hour), f"USD/h, {payload.status}", _prices(payload)),
        Figure("saved", "-" if saving is None else f"{saving:.0%}", _against(best), _prices(payload)),
        Figure("fleet", fleet_text(payload), f"{engines} engines", f"latencies {payload.provenance}"),
    ]


def _against(best: Baseline | None) -> str:
    """Return what the saving is measured against."""
    if best is None:
        return "no single GPU type can serve it"
    return f"against {best.count}× {best.gpu}, {usd(best.cost_usd_per_hour or 0.0)} USD/h"


def _rented(payload: PlanPayload) -> Table:
    return from_terminal(
        allocation_table(payload), _prices(payload), title="What is rented, and what it costs"
    )


def fleet_text(payload: PlanPayload) -> str:
    """Return the fleet as `1× H100-SXM + 5× L4`."""
    rows = zip(payload.allocation, gpu_labels(payload), strict=True)
    return " + ".join(f"{row.count}× {label}" for row, label in rows)


def _prices(payload: PlanPayload) -> str:
    dates = sorted({row.price_date for row in payload.allocation})
    return f"prices of {' to '.join(dict.fromkeys((dates[0], dates[-1])))}" if dates else "prices as given"


def _cost_chart(payload: PlanPayload) -> Chart:
    able = [(row, row.cost_usd_per_hour) for row in payload.baselines if row.cost_usd_per_hour is not None]
    singles = [
        Bar(f"{row.count}× {row.gpu}", cost, usd(cost))
        for row, cost in sorted(able, key=lambda pair: pair[1])
    ]
    plan = Bar("this plan", payload.cost_usd_per_hour, usd(payload.cost_usd_per_hour), chosen=True)
    data = from_terminal(baselines_table(payload), _prices(payload))
    rows = [["this plan", "", usd(payload.cost_usd_per_hour), fleet_text(payload)], *data.rows]
    unable = [row.gpu for row in payload.baselines if row.cost_usd_per_hour is None]
    note = f"{saving_text(payload)}." + (f" Can't serve it alone: {', '.join(unable)}." if unable else "")
    return Chart(
        "Cost against each single GPU type, USD/h",
        bars([plan, *singles], "USD/h"),
        Table("single-type fleets", data.columns, rows),
        _prices(payload),
        note[0].upper() + note[1:],
    )


def _flips(payload: PlanPayload) -> list[Block]:
    """Draw the cheapest fleet's cost at other rates, where the plan was explained."""
    if payload.explanation is None:
        return []
    table = from_terminal(explanation_tables(payload.explanation)[2])
    able = [(row.rate_rps, row.cost_usd_per_hour) for row in payload.explanation.flips]
    known = [(rate, cost) for rate, cost in able if cost is not None]
    if len(known) < 2:
        return []
    line = Series("cheapest fleet", [rate for rate, _ in known], [cost for _, cost in known])
    return [
        Chart(
            "Cheapest fleet at other rates, USD/h",
            lines([line], "requests/s", "USD/h"),
            table,
            f"latencies {payload.provenance}, {_prices(payload)}",
            "The fleet behind each point stands in the data.",
        )
    ]


def _routing(payload: PlanPayload) -> Table:
    """Return buckets × pools, shaded by share; of very many buckets, the busiest."""
    pools = [row.pool for row in payload.allocation]
    shown, note = _busiest(payload.routing)
    rows = [[row.bucket, row.tier, rps(row.rate_rps), *_shares(row, pools)] for row in shown]
    title = "Routing: share of each bucket's requests that each pool serves"
    heads = ["bucket, tokens", "tier", ">requests/s", *(f">{pool}" for pool in pools)]
    if not any(row.tier for row in shown):
        heads, rows = [heads[0], *heads[2:]], [[row[0], *row[2:]] for row in rows]
    return Table(title, heads, rows, str(payload.provenance), note)


def _shares(row: RoutingRow, pools: Sequence[str]) -> list[Heat | str]:
    return [Heat(row.shares[pool]) if pool in row.shares else "" for pool in pools]


def _busiest(routing: Sequence[RoutingRow]) -> tuple[list[RoutingRow], str]:
    if len(routing) <= MOST_BUCKETS:
        return list(routing), ""
    floor = sorted((row.rate_rps for row in routing), reverse=True)[MOST_BUCKETS - 1]
    shown = [row for row in routing if row.rate_rps >= floor][:MOST_BUCKETS]
    part = sum(row.rate_rps for row in shown) / sum(row.rate_rps for row in routing)
    return shown, f"The {len(shown)} busiest of {len(routing)} rows, {part:.1%} of all requests."


def _simulated(related: Related) -> list[Block]:
    simulations: list[Artifact[SimulationPayload]] = related.made("simulation")
    if not simulations:
        return [Lines(["No simulation of this plan is in the store; hgpu simulate makes one."])]
    blocks: list[Block] = []
    for made in simulations[:MOST_SIMULATIONS]:
        source = f"simulation {made.short}, latencies {made.payload.provenance}"
        blocks += attainment_chart(made.payload, source)
        blocks.append(from_terminal(attainment_table(made.payload), source, made.payload.arrivals))
    if len(simulations) > MOST_SIMULATIONS:
        blocks.append(Lines([f"The newest {MOST_SIMULATIONS} of {len(simulations)} simulations."]))
    return blocks


def _unusable(payload: PlanPayload) -> Table:
    title = "Operating points that can't serve some bucket, and why"
    return from_terminal(forbidden_table(payload), str(payload.provenance), title=title)


def _why(payload: PlanPayload) -> list[Block]:
    solver = payload.solver
    gap = f"{solver.bound_usd_per_hour:,.4f} USD/h is proven to be the least, gap {solver.gap:.2%}"
    size = f"{solver.variables:,} variables, {solver.constraints:,} constraints"
    said = [f"{solver.name}: {solver.status}; {gap}; {size}."]
    if payload.explanation is None:
        said.append("What binds wasn't asked for (hgpu plan --explain).")
    tables = [*explanation_tables(payload.explanation), *proof_tables(payload.proof)]
    source = f"latencies {payload.provenance}, {_prices(payload)}"
    blocks: list[Block] = [Lines(said)]
    for table, made in zip(tables, [source] * 3 + ["simulated"], strict=False):
        blocks.append(from_terminal(table, made))
    return blocks
