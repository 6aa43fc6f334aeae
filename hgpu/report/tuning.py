"""A fine-tune in the terminal and as JSON."""

from pathlib import Path
from typing import Any

from hgpu.artifacts.payloads.tuning import TuningPayload
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, table

LAST = 20  # steps whose mean loss stands for the end


def print_tuning(artifact: Artifact[TuningPayload]) -> None:
    """Print what was trained, how the loss went, and what it took; all measured."""
    payload, out = artifact.payload, console()
    out.print(
        f"[bold]{payload.model}[/bold], {payload.method}{_ranks(payload)}; {payload.steps} steps of "
        f"{payload.batch} × {payload.context} tokens{_shared(payload)}; measured",
        soft_wrap=True,
    )
    rows = table("", "", ">first", ">last", ">change")
    losses = payload.losses
    last = sum(losses[-LAST:]) / len(losses[-LAST:])
    rows.add_row("training loss (nats a token)", f"{losses[0]:.3f}", f"{last:.3f}", _change(losses[0], last))
    if held := payload.held_out:
        name = f"loss on {held.sequences} sequences held out"
        rows.add_row(name, f"{held.before:.3f}", f"{held.after:.3f}", _change(held.before, held.after))
    out.print(rows)
    for line in (_trained(payload), _took(payload), _weights(artifact)):
        out.print(line, markup=False, soft_wrap=True)
    out.print(f"tuning {artifact.short}  {artifact.path}", soft_wrap=True)


def tuning_json(artifact: Artifact[TuningPayload]) -> dict[str, Any]:
    """Return the payload with the artifact's digest and folder."""
    return {
        "status": "ok",
        "digest": artifact.digest,
        "path": str(artifact.path),
        "weights_path": str(weights_path(artifact)),
        **artifact.payload.model_dump(mode="json"),
    }


def _ranks(payload: TuningPayload) -> str:
    if not payload.ranks:
        return ""
    ranks = sorted(set(payload.ranks.values()))
    said = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return f" of {said} on {len(payload.ranks)} layers"


def _shared(payload: TuningPayload) -> str:
    if payload.processes == 1:
        return ""
    return f" by {payload.processes} processes, sharding {payload.sharding}"


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %"


def _trained(payload: TuningPayload) -> str:
    trained = payload.trained
    counts = f"{trained.peak:,} at most, {trained.mean:,.0f} on average, {trained.final:,} at the end"
    return f"trained parameters: {counts}, of {trained.of_model:,}"


def _took(payload: TuningPayload) -> str:
    memory = payload.memory
    said = "memory isn't told by this system"
    if memory.peak_bytes is not None:
        before = memory.before_bytes or 0
        each = " in any process" if payload.processes > 1 else ""
        said = f"{memory.of} memory {_mib(memory.peak_bytes)} at most{each}, {_mib(before)} before the model"
    again = f", in {payload.resumes + 1} parts" if payload.resumes else ""
    return f"{payload.seconds:,.1f} s in steps{again}; {payload.tokens_per_s:,.0f} tokens/s; {said}"


def weights_path(artifact: Artifact[TuningPayload]) -> Path:
    """Return the folder of what was trained."""
    return artifact.path.parent.parent / artifact.payload.weights


def _weights(artifact: Artifact[TuningPayload]) -> str:
    total = sum(row.bytes for row in artifact.payload.files)
    return f"weights: {weights_path(artifact)} ({_mib(total)})"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
