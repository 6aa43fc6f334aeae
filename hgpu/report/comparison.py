"""A comparison in the terminal and as JSON; the verdict first."""

from typing import Any

from hgpu.artifacts.payloads.comparison import (
    Arm,
    ComparedRow,
    ComparisonPayload,
    Effect,
    ToleranceSource,
    Verdict,
)
from hgpu.artifacts.store import Artifact
from hgpu.report.output import console, table

HEADS = ("point", "metric", ">base", ">head", ">change", ">interval", ">tolerance", "verdict")


def comparison_json(artifact: Artifact[ComparisonPayload]) -> dict[str, Any]:
    """Return the payload with digest and path."""
    return {
        **artifact.payload.model_dump(mode="json"),
        "digest": artifact.digest,
        "path": str(artifact.path),
    }


def print_comparison(artifact: Artifact[ComparisonPayload]) -> None:
    """Print the verdict, its reasons, and a row a metric; what doesn't decide is in brackets."""
    payload, out = artifact.payload, console()
    out.print(f"[bold]{payload.verdict.upper()}[/bold]: {title(payload)}", soft_wrap=True)
    for line in (*payload.reasons, *remarks(payload)):
        out.print(f"  {line}", markup=False, soft_wrap=True)
    if payload.rows:
        rows = table("", *HEADS)
        for row in payload.rows:
            rows.add_row(*(text.replace("[", r"\[") for text in cells(row)))
        out.print(rows)
    out.print(f"\ncomparison {artifact.short}  {artifact.path}", soft_wrap=True)


def title(payload: ComparisonPayload) -> str:
    """Say in a line what was compared with what."""
    base, head = (_arm(arm) for arm in (payload.base, payload.head))
    return f"{payload.compares}, {head} against {base}"


def remarks(payload: ComparisonPayload) -> list[str]:
    """Say what a reader must know beside the verdict: accepted differences, unknown keys, history, runs."""
    lines = [
        f"accepted: {row.key} is {' and '.join(row.head)}, was {' and '.join(row.base)}"
        for row in payload.mismatches
        if row.allowed
    ]
    if payload.unknown:
        lines.append(f"no run tells: {', '.join(payload.unknown)}")
    wanted = [row.more_runs for row in payload.rows if row.confirmatory and row.more_runs is not None]
    if wanted and payload.verdict is Verdict.INCONCLUSIVE:
        lines.append(f"about {max(wanted)} more runs an arm may settle it")
    if payload.history:
        lines.append(f"noise band from {payload.history} comparisons of like with like")
    return lines


def cells(row: ComparedRow) -> tuple[str, ...]:
    """Return a row's texts, in the order of HEADS."""
    verdict = str(row.verdict) if row.confirmatory else f"({row.verdict})"
    return (
        row.point, row.metric, value(row.base, row.unit), value(row.head, row.unit), change(row, row.change),
        "" if row.low is None else f"{change(row, row.low)} to {change(row, row.high)}",
        _tolerance(row), verdict + (f": {row.reason}" if row.reason and row.confirmatory else ""),
    )  # fmt: skip


def value(amount: float | str | None, unit: str) -> str:
    """Render a metric's value: seconds as milliseconds, shares as percents."""
    if amount is None or isinstance(amount, str):
        return amount or "-"
    if unit == "s":
        return f"{amount * 1e3:,.4g} ms"
    return f"{amount:.2%}" if unit == "share" else f"{amount:,.5g} {unit}"


def change(row: ComparedRow, amount: float | None) -> str:
    """Render a change: a ratio in percent, a share in points."""
    if amount is None:
        return "-"
    if row.effect is Effect.RATIO:
        return f"{amount:+.1%}"
    return f"{amount * 100:+.2f} pt" if row.unit == "share" else f"{amount:+.4g}"


def _tolerance(row: ComparedRow) -> str:
    if row.effect is Effect.EXACT:
        return "exact"
    text = f"±{row.tolerance * 100:.3g} {'%' if row.effect is Effect.RATIO else 'pt'}"
    return text + (
        f" ({row.tolerance_source})" if row.tolerance_source is not ToleranceSource.DEFAULT else ""
    )


def _arm(arm: Arm) -> str:
    if not arm.runs:
        return ", ".join(digest[:12] for digest in arm.digests)
    counts = sorted(set(arm.runs.values()))
    return f"{' to '.join(str(c) for c in (counts if len(counts) < 3 else (counts[0], counts[-1])))} runs"
