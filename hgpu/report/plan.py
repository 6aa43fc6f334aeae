"""A plan in the terminal and as JSON."""

from collections.abc import Sequence
from typing import Any

from hgpu.artifacts.payloads.plan import Baseline, PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, ms, table, usd
from hgpu.solvers.sweep import Cell


def plan_json(artifact: Artifact[PlanPayload]) -> dict[str, Any]:
    """Return the payload with the artifact's digest and the solver's seconds."""
    document = artifact.payload.model_dump(mode="json")
    document["solver"].update(artifact.manifest.timings)
    return {**document, "digest": artifact.digest, "path": str(artifact.path)}


def cell_json(cell: Cell) -> dict[str, Any]:
    """Return a swept cell: its values, and its plan or the reason why there is none."""
    if cell.artifact is not None:
        return {"values": cell.values, **plan_json(cell.artifact)}
    error = cell.error
    assert error is not None
    return {
        "values": cell.values,
        "status": "infeasible",
        "error": error.what,
        "why": error.why,
        "fix": error.fix,
    }


def print_plan(artifact: Artifact[PlanPayload]) -> None:
    """Print allocation, baselines, predictions and routing."""
    payload, out = artifact.payload, console()
    out.print(f"[bold]{payload.service}[/bold]: {_objectives(payload)}", soft_wrap=True)
    out.print(
        f"[bold]{usd(payload.cost_usd_per_hour)} USD/h[/bold] ({payload.status}, {payload.provenance}); "
        f"{_saving(payload)}",
        soft_wrap=True,
    )
    for rows in (
        _allocation(payload),
        _predictions(payload),
        _baselines(payload),
        _routing(payload),
        _forbidden(payload),
    ):
        if rows.row_count:
            out.print()
            out.print(rows)
    out.print(f"\nplan {artifact.short}  {artifact.path}", soft_wrap=True)


def print_sweep(cells: Sequence[Cell]) -> None:
    """Print a row a cell: allocation, cost, the best single type and the saving."""
    rows = table(
        "",
        *(f">{_label(name)}" for name in cells[0].values),
        "allocation",
        ">USD/h",
        "best single type",
        ">USD/h",
        ">saving",
        "plan",
    )
    for cell in cells:
        values = [f"{value:g}" for value in cell.values.values()]
        if cell.artifact is None:
            rows.add_row(
                *values, f"infeasible: {cell.error.what if cell.error else ''}", "-", "", "-", "-", ""
            )
            continue
        payload = cell.artifact.payload
        best = best_single(payload.baselines)
        saving = payload.savings_vs_best_single_type
        rows.add_row(
            *values,
            " + ".join(f"{row.count}× {row.gpu} ({row.offer})" for row in payload.allocation),
            usd(payload.cost_usd_per_hour),
            f"{best.count}× {best.gpu}" if best else "none can",
            usd(best.cost_usd_per_hour or 0.0) if best else "-",
            "-" if saving is None else f"{saving:.0%}",
            cell.artifact.short,
        )
    out = console()
    planned = [cell.artifact for cell in cells if cell.artifact]
    if planned:
        first = planned[0].payload
        dates = [artifact.manifest.environment.price_date or "?" for artifact in planned]
        out.print(
            f"[bold]{first.service}[/bold]; latencies {first.provenance}; oldest price of {min(dates)}",
            soft_wrap=True,
        )
    out.print(rows)
    _print_singles(cells)


def best_single(baselines: Sequence[Baseline]) -> Baseline | None:
    """Return the cheapest single-type fleet, if any type alone can serve."""
    able = [row for row in baselines if row.cost_usd_per_hour is not None]
    return min(able, key=lambda row: row.cost_usd_per_hour or 0.0) if able else None


def _print_singles(cells: Sequence[Cell]) -> None:
    planned = [cell for cell in cells if cell.artifact]
    gpus = dict.fromkeys(
        row.gpu for cell in planned if cell.artifact for row in cell.artifact.payload.baselines
    )
    rows = table(
        "\nsingle-type fleets, USD/h (GPUs)",
        *(f">{_label(name)}" for name in cells[0].values),
        *(f">{g}" for g in gpus),
    )
    for cell in planned:
        assert cell.artifact is not None
        by_gpu = {row.gpu: row for row in cell.artifact.payload.baselines}
        costs = []
        for gpu in gpus:
            row = by_gpu.get(gpu)
            able = row is not None and row.cost_usd_per_hour is not None
            costs.append(f"{usd(row.cost_usd_per_hour or 0.0)} ({row.count})" if row and able else "can't")
        rows.add_row(*(f"{value:g}" for value in cell.values.values()), *costs)
    console().print(rows)


def _label(name: str) -> str:
    return {"workload.rate_rps": "rate/s", "slo.tpot_ms": "TPOT ms", "slo.ttft_ms": "TTFT ms"}.get(name, name)


def _objectives(payload: PlanPayload) -> str:
    if payload.slo is None or payload.workload is None:
        return "capacities as given"
    parts = [
        f"{name} ≤ {objective.limit_s * 1e3:g} ms at p{objective.percentile:g}"
        for name, objective in (
            ("TTFT", payload.slo.ttft),
            ("TPOT", payload.slo.tpot),
            ("end-to-end", payload.slo.e2e),
        )
        if objective
    ]
    return f"{payload.workload.rate_rps:g} requests/s, {', '.join(parts)}"


def _saving(payload: PlanPayload) -> str:
    best, saving = best_single(payload.baselines), payload.savings_vs_best_single_type
    if best is None or saving is None:
        return "no single GPU type can serve it"
    fleet = f"{best.count}× {best.gpu}, {usd(best.cost_usd_per_hour or 0.0)} USD/h"
    return f"{saving:.0%} less than the best single type ({fleet})"


def _allocation(payload: PlanPayload) -> Any:
    rows = table(
        "allocation",
        "pool",
        "offer",
        "region",
        ">count",
        ">engines",
        "GPU",
        ">tp",
        "mode",
        ">USD/h",
        ">busy",
        "price of",
    )
    for row in payload.allocation:
        rows.add_row(
            row.pool, row.offer, row.region, str(row.count), str(row.engines), row.gpu, str(row.tp), row.mode,
            usd(row.usd_per_hour), f"{row.utilization:.0%}", row.price_date,
        )  # fmt: skip
    return rows


def _predictions(payload: PlanPayload) -> Any:
    p = next((o.percentile for o in (payload.slo.tpot, payload.slo.ttft) if o), 50.0) if payload.slo else 50.0
    rows = table(
        "predicted, ms",
        "pool",
        ">rate/s",
        ">TTFT mean",
        f">TTFT p{p:g}",
        ">TPOT mean",
        f">TPOT p{p:g}",
        ">in flight",
        "source",
    )
    for row in payload.predicted:
        rows.add_row(
            row.pool, f"{row.rate_rps:.2f}", ms(row.ttft_mean_s), ms(row.ttft_slo_s), ms(row.tpot_mean_s),
            ms(row.tpot_slo_s), f"{row.concurrency:.1f}", str(row.provenance),
        )  # fmt: skip
    return rows


def _baselines(payload: PlanPayload) -> Any:
    rows = table("single-type fleets", "GPU", ">GPUs", ">USD/h", "")
    for row in payload.baselines:
        cost = "-" if row.cost_usd_per_hour is None else usd(row.cost_usd_per_hour)
        rows.add_row(row.gpu, "-" if row.count is None else str(row.count), cost, row.reason)
    return rows


def _routing(payload: PlanPayload) -> Any:
    pools = [row.pool for row in payload.allocation]
    rows = table("routing: share of each bucket", "bucket", ">rate/s", *(f">{pool}" for pool in pools))
    if len(pools) > 1:
        for row in payload.routing:
            shares = [f"{row.shares[pool]:.0%}" if pool in row.shares else "" for pool in pools]
            rows.add_row(row.bucket, f"{row.rate_rps:.3f}", *shares)
    return rows


def _forbidden(payload: PlanPayload) -> Any:
    rows = table("not usable", "operating point", ">buckets", "reason")
    for row in payload.forbidden:
        rows.add_row(row.point, str(row.buckets), row.reason)
    return rows
