"""A placement of a reinforcement-learning loop in the terminal and as JSON."""

from typing import Any

from rich.table import Table
from rich.text import Text

from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, table, usd


def placement_json(artifact: Artifact[PlacementPayload]) -> dict[str, Any]:
    """Return the payload with the artifact's digest and the solver's seconds."""
    document = artifact.payload.model_dump(mode="json")
    timings = dict(artifact.manifest.timings or {})
    return {
        "status": "ok",
        **document,
        "timings": timings,
        "digest": artifact.digest,
        "path": str(artifact.path),
    }


def print_placement(artifact: Artifact[PlacementPayload]) -> None:
    """Print where each component runs, what else was possible, and what binds."""
    payload, out = artifact.payload, console()
    out.print(f"[bold]{payload.name}[/bold]: {answer_text(payload)}", soft_wrap=True)
    out.print(
        f"[bold]{seconds(payload.iteration_s)} s and {usd(payload.usd_per_iteration)} USD an iteration[/bold]"
        f" ({payload.provenance} from profiles, never measured together); {usd(payload.usd_per_hour)} USD/h"
        f"{total_text(payload)}",
        soft_wrap=True,
    )
    for rows in (
        components_table(payload),
        pools_table(payload),
        alternatives_table(payload),
        binding_table(payload),
    ):
        if rows.row_count:
            out.print()
            out.print(rows)
    for text in payload.missing:
        out.print(f"not considered: {text}", markup=False, soft_wrap=True)
    out.print(f"model: {payload.model}", markup=False, soft_wrap=True)
    out.print(f"\nplacement {artifact.short}  {artifact.path}", soft_wrap=True)


def answer_text(payload: PlacementPayload) -> str:
    """Return the mode, the layout, and what was asked for."""
    stages = f" with {payload.stages} stages" if payload.stages > 1 else ""
    wanted = "fastest" if payload.objective == "time" else "cheapest"
    return f"{payload.mode}, {payload.layout}{stages}; the {wanted} placement"


def seconds(value: float) -> str:
    """Render seconds to four digits or a tenth of a millisecond."""
    return f"{value:.4g}" if value < 1000 else f"{value:,.1f}"


def total_text(payload: PlacementPayload) -> str:
    """Return what all iterations take and cost, if it is known how many there are."""
    if payload.total_s is None or payload.total_usd is None:
        return ""
    limits = [
        *([f"deadline {payload.deadline_s / 3600:g} h"] if payload.deadline_s is not None else []),
        *([f"budget {usd(payload.budget_usd)} USD"] if payload.budget_usd is not None else []),
    ]
    said = f" ({', '.join(limits)})" if limits else ""
    total = f"{payload.total_s / 3600:.4g} h, {usd(payload.total_usd)} USD"
    return f"; {payload.iterations:,} iterations: {total}{said}"


def components_table(payload: PlacementPayload) -> Table:
    """Return a row a component: its GPUs, processes and seconds."""
    rows = table(
        "placement", "component", "GPU", "ranks", ">GPUs", ">processes", ">envs each", ">s", "", "profile"
    )
    for row in payload.components:
        rows.add_row(
            row.name, row.gpu, f"{row.first_gpu}-{row.last_gpu}", str(row.gpus), str(row.processes),
            "" if row.envs_per_process is None else str(row.envs_per_process), seconds(row.seconds),
            f"{'a step' if row.envs_per_process else 'an iteration'}, {row.provenance}",
            Text(row.source or "not stated"),
        )  # fmt: skip
    return rows


def pools_table(payload: PlacementPayload) -> Table:
    """Return a row a pool: what is used and paid."""
    rows = table("pools", "GPU", ">used", ">of", ">nodes", ">paid GPUs", ">USD/h", "pays for", "price of")
    for row in payload.pools:
        rows.add_row(
            row.gpu, str(row.used), str(row.gpus), str(row.nodes), str(row.paid_gpus), usd(row.usd_per_hour),
            row.pay, Text(row.source),
        )  # fmt: skip
    return rows


def alternatives_table(payload: PlacementPayload) -> Table:
    """Return a row a mode and number of stages: its best placement, the chosen one first."""
    rows = table(
        "the best of each mode",
        "mode",
        ">stages",
        ">s/iteration",
        ">USD/iteration",
        ">GPUs",
        "layout",
        "where",
    )
    seen: set[tuple[str, int]] = set()
    for row in payload.alternatives:
        if (row.mode, row.stages) in seen:
            continue
        seen.add((row.mode, row.stages))
        if row.iteration_s is None or row.usd_per_iteration is None:
            rows.add_row(row.mode, "", "-", "-", "", row.reason, "")
            continue
        rows.add_row(
            row.mode, str(row.stages), seconds(row.iteration_s), usd(row.usd_per_iteration), str(row.gpus),
            row.layout, row.where,
        )  # fmt: skip
    return rows


def binding_table(payload: PlacementPayload) -> Table:
    """Return a row a thing that holds the answer back, with the answer without it."""
    rows = table("what binds", "what", ">s/iteration", ">USD/iteration")
    for row in payload.binding:
        rows.add_row(
            Text(row.what),
            "" if row.iteration_s is None else seconds(row.iteration_s),
            "" if row.usd_per_iteration is None else usd(row.usd_per_iteration),
        )
    return rows
