"""A simulated fleet in the terminal and as JSON."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from hgpu.artifacts.payloads.simulation import ObjectiveRow, PoolRow, RunRow, SimulationPayload, Spread
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, ms, table, usd

LABELS = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end-to-end"}


def simulation_json(artifact: Artifact[SimulationPayload]) -> dict[str, Any]:
    """Return the payload with digest, path and the policy that decided about prompts (null: vLLM's own)."""
    return {
        **artifact.payload.model_dump(mode="json"),
        "phases": artifact.manifest.options.get("phases"),
        "digest": artifact.digest,
        "path": str(artifact.path),
    }


def print_simulation(artifact: Artifact[SimulationPayload]) -> None:
    """Print attainment, latencies and what each pool did, a row a run."""
    payload, out = artifact.payload, console()
    out.print(f"[bold]{payload.service}[/bold]: {payload.provenance}; engines by {payload.balance}")
    out.print(payload.arrivals, markup=False, soft_wrap=True)
    if phases := artifact.manifest.options.get("phases"):
        out.print(phases_text(phases), markup=False, soft_wrap=True)
    for rows in (attainment_table(payload), latencies_table(payload), pools_table(payload)):
        out.print()
        out.print(rows)
    for line in (line for run in payload.runs for line in remarks(run)):
        out.print(line, markup=False, soft_wrap=True)
    out.print(f"\nsimulation {artifact.short}  {artifact.path}", soft_wrap=True)


def phases_text(phases: Mapping[str, Any]) -> str:
    """Return the policy in words."""
    ageing_tok_per_s, tpot_s = phases["ageing_tok_per_s"], phases["tpot_s"]
    order = "first come first served"
    if ageing_tok_per_s is not None:
        order = f"shortest first, ageing {ageing_tok_per_s:g} tokens/s"
    budget = "" if tpot_s is None else f"; steps within a TPOT of {ms(tpot_s)} ms"
    return f"prompts {order}{budget}"


def objective_text(row: ObjectiveRow) -> str:
    """Return an objective as `TTFT ≤ 2000 ms at p99`, its tier first."""
    name = f"{row.tier and row.tier + ' '}{LABELS[row.objective]}"
    return f"{name} ≤ {row.limit_s * 1e3:g} ms at p{row.percentile:g}"


def attainment_table(payload: SimulationPayload) -> Table:
    """Return a row a run: which part of the requests kept to what, and what that cost."""
    heads = [f">{objective_text(row)}" for row in payload.runs[0].objectives]
    columns = (">requests/s", ">requests", ">rejected", *heads, ">all", ">USD/h", ">USD/M out", ">USD/M")
    rows = table("attainment: part of all requests", "run", *columns)
    for run in payload.runs:
        costs = (run.usd_per_million_output_tokens, run.usd_per_million_tokens)
        rows.add_row(
            case_of(run), f"{run.rate_rps:.4g}", f"{run.requests:,}", f"{run.rejected:,}",
            *(share_text(o.attainment) + ("" if o.met else " ✗") for o in run.objectives),
            share_text(run.goodput_share), usd(run.usd_per_hour),
            *("-" if c is None else usd(c) for c in costs),
        )  # fmt: skip
    return rows


def latencies_table(payload: SimulationPayload) -> Table:
    """Return a row a run: percentiles of the latencies."""
    heads = [f">{name} {p}" for name in ("TTFT", "TPOT", "end-to-end", "queueing") for p in ("p50", "p99")]
    rows = table("latencies of served requests, ms", "run", *heads)
    for run in payload.runs:
        spreads = (run.ttft_s, run.tpot_s, run.e2e_s, run.queue_s)
        rows.add_row(case_of(run), *(text for spread in spreads for text in _spread(spread)))
    return rows


def pools_table(payload: SimulationPayload) -> Table:
    """Return a row a run and pool: what its engines did."""
    reuses = any(pool.hit_share is not None for run in payload.runs for pool in run.pools)
    rows = table(
        "pools", "run", "pool", ">engines", ">requests", ">rejected", ">busy", ">mean batch", ">peak KV",
        ">preemptions", *([">prefix hits"] if reuses else []),
    )  # fmt: skip
    for run in payload.runs:
        for pool in run.pools:
            rows.add_row(
                case_of(run), pool.pool, str(pool.engines), f"{pool.requests:,}", f"{pool.rejected:,}",
                f"{pool.utilization:.0%}", f"{pool.mean_batch:.1f}", f"{pool.max_kv_share:.0%}",
                f"{pool.preemptions:,}", *([_hits(pool)] if reuses else []),
            )  # fmt: skip
    return rows


def _hits(pool: PoolRow) -> str:
    return "-" if pool.hit_share is None else f"{pool.hit_share:.1%}"


def remarks(run: RunRow) -> list[str]:
    """Say why requests were rejected, and which objectives were missed."""
    lines = []
    if run.rejected:
        unable = sum(pool.rejected for pool in run.pools)
        lines.append(
            f"rejected at {case_of(run)}: {run.rejected - unable:,} that no bucket of the plan holds, "
            f"{unable:,} that no engine of their pool can serve"
        )
    for row in run.objectives:
        if not row.met:
            limit = f"{row.tier and row.tier + ' '}{LABELS[row.objective]} ≤ {row.limit_s * 1e3:g} ms"
            got = f"{share_text(row.attainment)} of requests, {row.percentile:g} % promised"
            lines.append(f"missed at {case_of(run)}: {limit} for {got}")
    return lines


def case_of(run: RunRow) -> str:
    """Return the name of a run: its multiple of the rate, and the machine that is lost."""
    return f"{run.multiplier:g}×" + (f", one {run.lost} lost" if run.lost else "")


def share_text(share: float) -> str:
    """Render a share so that only all of them is 100 %."""
    return "100 %" if share == 1 else f"{min(share * 100, 99.99):.2f} %"


def _spread(spread: Spread | None) -> tuple[str, str]:
    return ("-", "-") if spread is None else (ms(spread.p50), ms(spread.p99))
