"""A simulated fleet in the terminal and as JSON."""

from typing import Any

from hgpu.artifacts.payloads.simulation import PoolRow, RunRow, SimulationPayload, Spread
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, ms, table, usd

LABELS = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end-to-end"}


def simulation_json(artifact: Artifact[SimulationPayload]) -> dict[str, Any]:
    """Return the payload with digest and path."""
    return {
        **artifact.payload.model_dump(mode="json"),
        "digest": artifact.digest,
        "path": str(artifact.path),
    }


def print_simulation(artifact: Artifact[SimulationPayload]) -> None:
    """Print attainment, latencies and what each pool did, a row a run."""
    payload, out = artifact.payload, console()
    out.print(f"[bold]{payload.service}[/bold]: {payload.provenance}; engines by {payload.balance}")
    out.print(payload.arrivals, markup=False, soft_wrap=True)
    for rows in (_attainment(payload), _latencies(payload), _pools(payload)):
        out.print()
        out.print(rows)
    for line in (line for run in payload.runs for line in _remarks(run)):
        out.print(line, markup=False, soft_wrap=True)
    out.print(f"\nsimulation {artifact.short}  {artifact.path}", soft_wrap=True)


def _attainment(payload: SimulationPayload) -> Any:
    heads = [
        f">{o.tier and o.tier + ' '}{LABELS[o.objective]} ≤ {o.limit_s * 1e3:g} ms at p{o.percentile:g}"
        for o in payload.runs[0].objectives
    ]
    columns = (">requests/s", ">requests", ">rejected", *heads, ">all", ">USD/h", ">USD/M out", ">USD/M")
    rows = table("attainment: part of all requests", "run", *columns)
    for run in payload.runs:
        costs = (run.usd_per_million_output_tokens, run.usd_per_million_tokens)
        rows.add_row(
            _case(run), f"{run.rate_rps:.4g}", f"{run.requests:,}", f"{run.rejected:,}",
            *(_share(o.attainment) + ("" if o.met else " ✗") for o in run.objectives),
            _share(run.goodput_share), usd(run.usd_per_hour), *("-" if c is None else usd(c) for c in costs),
        )  # fmt: skip
    return rows


def _latencies(payload: SimulationPayload) -> Any:
    heads = [f">{name} {p}" for name in ("TTFT", "TPOT", "end-to-end", "queueing") for p in ("p50", "p99")]
    rows = table("latencies of served requests, ms", "run", *heads)
    for run in payload.runs:
        spreads = (run.ttft_s, run.tpot_s, run.e2e_s, run.queue_s)
        rows.add_row(_case(run), *(text for spread in spreads for text in _spread(spread)))
    return rows


def _pools(payload: SimulationPayload) -> Any:
    reuses = any(pool.hit_share is not None for run in payload.runs for pool in run.pools)
    rows = table(
        "pools", "run", "pool", ">engines", ">requests", ">rejected", ">busy", ">mean batch", ">peak KV",
        ">preemptions", *([">prefix hits"] if reuses else []),
    )  # fmt: skip
    for run in payload.runs:
        for pool in run.pools:
            rows.add_row(
                _case(run), pool.pool, str(pool.engines), f"{pool.requests:,}", f"{pool.rejected:,}",
                f"{pool.utilization:.0%}", f"{pool.mean_batch:.1f}", f"{pool.max_kv_share:.0%}",
                f"{pool.preemptions:,}", *([_hits(pool)] if reuses else []),
            )  # fmt: skip
    return rows


def _hits(pool: PoolRow) -> str:
    return "-" if pool.hit_share is None else f"{pool.hit_share:.1%}"


def _remarks(run: RunRow) -> list[str]:
    """Say why requests were rejected, and which objectives were missed."""
    lines = []
    if run.rejected:
        unable = sum(pool.rejected for pool in run.pools)
        lines.append(
            f"rejected at {_case(run)}: {run.rejected - unable:,} that no bucket of the plan holds, "
            f"{unable:,} that no engine of their pool can serve"
        )
    for row in run.objectives:
        if not row.met:
            limit = f"{row.tier and row.tier + ' '}{LABELS[row.objective]} ≤ {row.limit_s * 1e3:g} ms"
            got = f"{_share(row.attainment)} of requests, {row.percentile:g} % promised"
            lines.append(f"missed at {_case(run)}: {limit} for {got}")
    return lines


def _case(run: RunRow) -> str:
    return f"{run.multiplier:g}×" + (f", one {run.lost} lost" if run.lost else "")


def _share(share: float) -> str:
    """Render a share so that only all of them is 100 %."""
    return "100 %" if share == 1 else f"{min(share * 100, 99.99):.2f} %"


def _spread(spread: Spread | None) -> tuple[str, str]:
    return ("-", "-") if spread is None else (ms(spread.p50), ms(spread.p99))
