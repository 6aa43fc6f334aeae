"""A planned training job in the terminal and as JSON."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from hgpu.artifacts.payloads.activations import ActivationsPayload
from hgpu.artifacts.payloads.job import JobChoice, JobPayload
from hgpu.artifacts.store import Artifact
from hgpu.core.training import not_tuned
from hgpu.report.output import console, table, usd

GIB = 2**30


def jobs_json(jobs: Sequence[Artifact[JobPayload]]) -> dict[str, Any]:
    """Return the document of a lone job as it is, those of several under `jobs`."""
    documents = [job_json(artifact) for artifact in jobs]
    return documents[0] if len(documents) == 1 else {"jobs": documents}


def job_json(artifact: Artifact[JobPayload]) -> dict[str, Any]:
    """Return the payload with the artifact's digest and the solver's seconds."""
    document = artifact.payload.model_dump(mode="json")
    document["solver"].update(artifact.manifest.timings)
    return {"status": "ok", **document, "digest": artifact.digest, "path": str(artifact.path)}


def print_jobs(jobs: Sequence[Artifact[JobPayload]]) -> None:
    """Print jobs one after the other."""
    for artifact in jobs:
        print_job(artifact)


def print_job(artifact: Artifact[JobPayload]) -> None:
    """Print what is rented, how it trains, its memory, what binds, and the runners-up."""
    payload, out = artifact.payload, console()
    out.print(f"[bold]{payload.name}[/bold]: {asked_text(payload)}", soft_wrap=True)
    out.print(f"[bold]{usd(payload.choice.cost_usd)} USD[/bold], {answer_text(payload)}", soft_wrap=True)
    tables = (choices_table(payload), step_table(payload), memory_table(payload), placement_table(payload))
    for rows in (*tables, binding_table(payload), refused_table(payload)):
        if rows.row_count:
            out.print()
            out.print(rows)
    out.print(f"\n{counts_text(payload)}", markup=False, soft_wrap=True)
    out.print(source_text(payload), markup=False, soft_wrap=True)
    out.print(run_text(payload), markup=False, soft_wrap=True)
    out.print(f"\njob {artifact.short}  {artifact.path}", soft_wrap=True)


def asked_text(payload: JobPayload) -> str:
    """Return what was asked for."""
    spec = payload.spec
    said = [f"{payload.steps:,} steps of {spec['batch']} × {spec['context']} tokens"]
    if payload.deadline_h is not None:
        said.append(f"within {payload.deadline_h:g} h")
    if payload.budget_usd is not None:
        said.append(f"for at most {usd(payload.budget_usd)} USD")
    if payload.together_with:
        said.append(f"planned together with {', '.join(payload.together_with)}")
    return "; ".join(said)


def answer_text(payload: JobPayload) -> str:
    """Return the answer in a line."""
    choice = payload.choice
    gpus = f"{choice.variant.gpus}× {choice.gpu}"
    machines = f"{choice.machines}× {choice.offer} in {choice.region}"
    method = f"{choice.variant.name} on {gpus} ({machines})"
    return f"{hours_text(choice.hours)}: {method}; estimated, bound by {choice.bound}"


def choices_table(payload: JobPayload) -> Table:
    """Return the choice and its runners-up, the cheapest first."""
    rows = table(
        "the choice, and what else keeps all bounds",
        "",
        "method",
        "GPUs",
        "offer",
        ">micro-batch",
        ">passes",
        ">GiB a GPU",
        ">GiB host",
        ">step, s",
        "bound by",
        ">hours",
        ">USD",
    )
    for number, choice in enumerate((payload.choice, *payload.alternatives)):
        label = {0: "chosen", 1: "runner-up"}.get(number, "")
        rows.add_row(label, *choice_cells(choice))
    return rows


def choice_cells(choice: JobChoice) -> list[str]:
    """Return a way to train as the cells of a row."""
    variant = choice.variant
    degrees = f" tp{variant.tp}" if variant.tp > 1 else ""
    return [
        variant.name,
        f"{variant.gpus}× {choice.gpu}{degrees}",
        f"{choice.machines}× {choice.offer}" if choice.machines > 1 else choice.offer,
        str(variant.micro_batch),
        str(choice.accumulation),
        f"{choice.memory_bytes / GIB:.1f}",
        f"{choice.host_bytes / GIB:.1f}" if choice.host_bytes else "",
        f"{choice.step_s:.3g}",
        choice.bound,
        f"{choice.hours:,.2f}" if choice.hours >= 0.1 else f"{choice.hours:.2g}",
        usd(choice.cost_usd),
    ]


def step_table(payload: JobPayload) -> Table:
    """Return what a step's time is spent on."""
    rows = table("a step", "spent on", ">s", ">share")
    choice = payload.choice
    for name, seconds in sorted(choice.seconds_by_bound.items(), key=lambda row: -row[1]):
        rows.add_row(name, f"{seconds:.3g}", f"{seconds / choice.step_s:.0%}")
    return rows


def memory_table(payload: JobPayload) -> Table:
    """Return what each GPU, and the host, holds over a step."""
    items = [name for name in payload.memory[0].device if any(row.device[name] for row in payload.memory)]
    capacity = payload.device_capacity_bytes / GIB
    rows = table(
        f"GiB on each GPU, of {capacity:.1f}", "moment of a step", *(f">{name}" for name in items), ">all"
    )
    for row in payload.memory:
        cells = [f"{row.device[name] / GIB:.2f}" for name in items]
        rows.add_row(row.moment, *cells, f"{sum(row.device.values()) / GIB:.2f}")
    host = payload.memory[0].host
    if any(host.values()):
        cells = [f"{host[name] / GIB:.2f}" for name in items]
        there = (payload.host_capacity_bytes or 0) / GIB
        rows.add_row(f"host, of {there:.0f}", *cells, f"{sum(host.values()) / GIB:.2f}")
    return rows


def placement_table(payload: JobPayload) -> Table:
    """Return where the host's tensors lie; empty where there is one tier."""
    tiers = list(payload.placement[0].bytes_by_tier) if payload.placement else []
    rows = table("GiB of the host's tensors by memory tier", "tensor", *(f">{tier}" for tier in tiers))
    if len(tiers) > 1:
        for row in payload.placement:
            rows.add_row(row.tensor, *(f"{row.bytes_by_tier[tier] / GIB:.2f}" for tier in tiers))
    return rows


def binding_table(payload: JobPayload) -> Table:
    """Return each bound, and what the job would be without it."""
    rows = table("what binds", "bound", "binds", "without it", ">saves, USD")
    for row in payload.binding:
        saves = "" if row.saves_usd is None else usd(row.saves_usd)
        rows.add_row(row.bound, "yes" if row.binds else "no", row.without, saves)
    return rows


def refused_table(payload: JobPayload) -> Table:
    """Return why some ways can't be had."""
    rows = table("not usable", "reason", ">ways", "nearest")
    for row in payload.refused:
        rows.add_row(row.reason, str(row.ways), row.nearest)
    return rows


def counts_text(payload: JobPayload) -> str:
    """Return how many parameters are trained."""
    count = payload.trainable
    if count.peak == count.final:
        return f"trained parameters: {count.peak:,}"
    mean = f"{count.mean:,.0f} on average"
    return f"trained parameters: {count.peak:,} at first, {mean}, {count.final:,} at the end"


def source_text(payload: JobPayload) -> str:
    """Return where the figures come from."""
    source = payload.activations
    error = f", error {source.error:.1e}" if source.error else ""
    return (
        f"states counted as {payload.convention}; activations {source.provenance}: {source.source}{error}; "
        f"step time estimated from data sheets{_gap_text(payload)}"
    )


def run_text(payload: JobPayload) -> str:
    """Return what runs the choice."""
    why = not_tuned(payload.choice.variant, payload.model.weight_dtype)
    return (
        f"{why}; hgpu deploy needs a --command for it"
        if why
        else "hgpu tune runs it (hgpu tune latest), and hgpu deploy brings it elsewhere"
    )


def _gap_text(payload: JobPayload) -> str:
    """Say how the published placement in memory tiers compares with the shortest, where there are tiers."""
    gap = payload.placement_gap
    if gap is None:
        return ""
    longer = gap.rule_step_s / gap.exact_step_s - 1
    found = "the exact placement" if gap.proven else "the best placement found"
    return f"; tensors placed latency first: a step takes {longer:.1%} longer than by {found}"


def hours_text(hours: float) -> str:
    """Render hours, as minutes or seconds where they are few."""
    if hours * 60 < 1:
        return f"{hours * 3600:.3g} s"
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def print_activations(artifact: Artifact[ActivationsPayload]) -> None:
    """Print the bytes that each way to train saves."""
    payload, out = artifact.payload, console()
    out.print(f"[bold]{payload.model_source}[/bold], {payload.dtype}: activations, {payload.provenance}")
    rows = table(
        "bytes",
        "method",
        "checkpointed",
        ">a layer and token",
        ">a token",
        ">a logit",
        ">at its peak",
        ">error",
    )
    for row in payload.rows:
        saved, head = row.activations.saved, row.activations.head
        method = row.method + (f" r{row.rank}" if row.rank else "") + (" mixed" if row.mixed else "")
        rows.add_row(
            method,
            "yes" if row.checkpointing else "no",
            f"{saved.layer_token:,.0f}",
            f"{max(saved.token, 0.0):,.0f}",
            f"{saved.logit:.1f}",
            f"{head.logit:.1f}",
            f"{row.activations.error:.1e}",
        )
    out.print(rows)
    out.print(f"\nactivations {artifact.short}  {artifact.path}", soft_wrap=True)


def activations_json(artifact: Artifact[ActivationsPayload]) -> dict[str, Any]:
    """Return the payload with the artifact's digest and folder."""
    document = artifact.payload.model_dump(mode="json")
    return {"status": "ok", **document, "digest": artifact.digest, "path": str(artifact.path)}
