"""A plan in the terminal and as JSON."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from hgpu.artifacts.payloads.plan import AllocationRow, Baseline, PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.core.slo import Slo, Tier
from hgpu.report.explanation import explanation_tables, proof_tables, proof_text
from hgpu.report.output import console, ms, rps, table, usd

HOURS_A_MONTH = 730  # of 365 × 24 / 12


def plans_json(plans: Sequence[Artifact[PlanPayload]]) -> dict[str, Any]:
    """Return the document of a lone plan as it is, that of several under `plans`."""
    documents = [plan_json(artifact) for artifact in plans]
    return documents[0] if len(documents) == 1 else {"plans": documents}


def print_plans(plans: Sequence[Artifact[PlanPayload]]) -> None:
    """Print plans one after the other."""
    for artifact in plans:
        print_plan(artifact)


def plan_json(artifact: Artifact[PlanPayload]) -> dict[str, Any]:
    """Return the payload with the artifact's digest and the solver's seconds."""
    document = artifact.payload.model_dump(mode="json")
    document["solver"].update(artifact.manifest.timings)
    if units := usd_per_million_tokens(artifact.payload):
        document["usd_per_million_output_tokens"], document["usd_per_million_tokens"] = units
    return {**document, "digest": artifact.digest, "path": str(artifact.path)}


def print_plan(artifact: Artifact[PlanPayload]) -> None:
    """Print allocation, baselines, predictions and routing."""
    payload, out = artifact.payload, console()
    out.print(f"[bold]{payload.service}[/bold]: {objectives_text(payload)}", soft_wrap=True)
    out.print(
        f"[bold]{usd(payload.cost_usd_per_hour)} USD/h[/bold] ({payload.status}, {payload.provenance}); "
        f"{saving_text(payload)}",
        soft_wrap=True,
    )
    if units := usd_per_million_tokens(payload):
        out.print(
            f"{usd(units[0])} USD a million output tokens at that rate, "
            f"{usd(units[1])} a million in all; "
            f"{payload.cost_usd_per_hour * HOURS_A_MONTH:,.0f} USD a month of {HOURS_A_MONTH} hours",
            soft_wrap=True,
        )
    for rows in (
        allocation_table(payload),
        predictions_table(payload),
        baselines_table(payload),
        _routing(payload),
        forbidden_table(payload),
        *explanation_tables(payload.explanation),
        *proof_tables(payload.proof),
    ):
        if rows.row_count:
            out.print()
            out.print(rows)
    if payload.proof is not None:
        out.print(f"\n{proof_text(payload.proof)}", markup=False, soft_wrap=True)
    out.print(f"\nplan {artifact.short}  {artifact.path}", soft_wrap=True)


def usd_per_million_tokens(payload: PlanPayload) -> tuple[float, float] | None:
    """Return what a million output tokens cost at the planned rate, and a million tokens in all.

    None where the plan doesn't know the tokens of its requests.
    """
    workload = payload.workload
    if workload is None or not workload.buckets:
        return None
    requests_per_hour = workload.rate_rps * payload.served * 3600
    usd_per_million_requests = payload.cost_usd_per_hour / requests_per_hour * 1e6
    out = workload.mean_output_tokens
    return usd_per_million_requests / out, usd_per_million_requests / (workload.mean_input_tokens + out)


def best_single(baselines: Sequence[Baseline]) -> Baseline | None:
    """Return the cheapest single-type fleet, if any type alone can serve."""
    able = [row for row in baselines if row.cost_usd_per_hour is not None]
    return min(able, key=lambda row: row.cost_usd_per_hour or 0.0) if able else None


def objectives_text(payload: PlanPayload) -> str:
    """Return the rate, the objectives and the confidence that were planned for."""
    if payload.workload is None:
        return "capacities as given"
    tiers = payload.tiers or ([Tier("", 1.0, payload.slo)] if payload.slo else [])
    said = [
        f"{tier.name} ({tier.share:.0%}): {_slo(tier.slo)}" if tier.name else _slo(tier.slo) for tier in tiers
    ]
    rate = f"{payload.workload.rate_rps * payload.served:g} requests/s"
    if payload.served != 1:
        rate += f" ({payload.served:.0%} of {payload.workload.rate_rps:g}: what the budget buys)"
    return f"{rate}; {'; '.join(said)}; confidence {payload.confidence:g}"


def _slo(slo: Slo) -> str:
    parts = [
        f"{name} ≤ {objective.limit_s * 1e3:g} ms at p{objective.percentile:g}"
        for name, objective in (
            ("TTFT", slo.ttft),
            ("TPOT", slo.tpot),
            ("end-to-end", slo.e2e),
        )
        if objective
    ]
    return ", ".join(parts)


def saving_text(payload: PlanPayload) -> str:
    """Return what the plan saves against the cheapest fleet of one GPU type."""
    best, saving = best_single(payload.baselines), payload.savings_vs_best_single_type
    if best is None or saving is None:
        return "no single GPU type can serve it"
    fleet = f"{best.count}× {best.gpu}, {usd(best.cost_usd_per_hour or 0.0)} USD/h"
    if saving < 0.0005:
        return f"as cheap as the best single type ({fleet})"
    return f"{saving:.0%} less than the best single type ({fleet})"


def gpu_labels(payload: PlanPayload) -> list[str]:
    """Return the GPU type of each pool, with what its engines have that others' of the type haven't.

    That is the budget of a step where pools of one type differ in it, and the cache of mode `offload`.
    """
    budgets: dict[str, set[int]] = {}
    for row in payload.allocation:
        budgets.setdefault(row.gpu, set()).add(row.point.engine.max_num_batched_tokens)
    return [
        row.gpu
        + (f" {row.mode} {row.point.experts.fraction * 100:g}%" if row.point.experts else "")
        + (f" {row.point.engine.max_num_batched_tokens}t" if len(budgets[row.gpu]) > 1 else "")
        for row in payload.allocation
    ]


def mode_text(row: AllocationRow) -> str:
    """Return a pool's mode; with its cache and batch limit where experts are in host memory."""
    if row.point.experts is None:
        return row.mode
    return f"{row.mode} {row.point.experts.name}, {row.point.engine.max_num_seqs} seqs"


def allocation_table(payload: PlanPayload) -> Table:
    """Return a row a pool: what is rented and what runs on it."""
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
        ">step",
        ">USD/h",
        ">busy",
        "price of",
    )
    for row in payload.allocation:
        rows.add_row(
            row.pool, row.offer, row.region, str(row.count), str(row.engines), row.gpu, str(row.tp),
            mode_text(row), f"{row.point.engine.max_num_batched_tokens}t", usd(row.usd_per_hour),
            f"{row.utilization:.0%}", row.price_date,
        )  # fmt: skip
    if payload.idle_usd_per_hour:
        rows.add_row(
            "(reserved, unused)", "", "", "", "", "", "", "", "", usd(payload.idle_usd_per_hour), "0%", ""
        )
    return rows


def predictions_table(payload: PlanPayload) -> Table:
    """Return a row a pool: what it will do at its share of the load."""
    slos = [payload.slo] if payload.slo else [tier.slo for tier in payload.tiers]
    p = max((o.percentile for slo in slos for o in (slo.tpot, slo.ttft) if o), default=50.0)
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
            row.pool, rps(row.rate_rps), ms(row.ttft_mean_s), ms(row.ttft_slo_s), ms(row.tpot_mean_s),
            ms(row.tpot_slo_s), f"{row.concurrency:.1f}", str(row.provenance),
        )  # fmt: skip
    return rows


def baselines_table(payload: PlanPayload) -> Table:
    """Return a row a GPU type: its cheapest fleet, or why it has none."""
    rows = table("single-type fleets", "GPU", ">GPUs", ">USD/h", "")
    for row in payload.baselines:
        cost = "-" if row.cost_usd_per_hour is None else usd(row.cost_usd_per_hour)
        rows.add_row(row.gpu, "-" if row.count is None else str(row.count), cost, row.reason)
    return rows


def _routing(payload: PlanPayload) -> Any:
    pools = [row.pool for row in payload.allocation]
    rows = table(
        "routing: share of each bucket", "bucket", "tier", ">rate/s", *(f">{pool}" for pool in pools)
    )
    if len(pools) > 1:
        for row in payload.routing:
            shares = [f"{row.shares[pool]:.0%}" if pool in row.shares else "" for pool in pools]
            rows.add_row(row.bucket, row.tier, rps(row.rate_rps), *shares)
    return rows


def forbidden_table(payload: PlanPayload) -> Table:
    """Return a row an operating point and reason for which it can't serve some bucket."""
    rows = table("not usable", "operating point", ">buckets", "reason")
    for row in payload.forbidden:
        rows.add_row(row.point, str(row.buckets), row.reason)
    return rows
