"""The page of a comparison: the verdict first, then every metric with its interval."""

from hgpu.artifacts.payloads.comparison import ComparedRow, ComparisonPayload, Effect, Verdict
from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.report.comparison import HEADS, cells, change, remarks, title
from hgpu.report.html.blocks import Block, Chart, Figure, Lines, Outcome, Page, Section, Table
from hgpu.report.html.draw import Bar, bars

OUTCOMES: dict[Verdict, Outcome] = {
    Verdict.OK: "good",
    Verdict.IMPROVED: "good",
    Verdict.REGRESSED: "bad",
    Verdict.INVALID: "bad",
    Verdict.INCONCLUSIVE: "open",
}
SENTENCES = {
    Verdict.OK: "No metric is worse by more than its tolerance.",
    Verdict.IMPROVED: "Better by more than the tolerance, and nowhere worse.",
    Verdict.REGRESSED: "Worse by more than the tolerance.",
    Verdict.INVALID: "The two can't be compared.",
    Verdict.INCONCLUSIVE: "The runs don't tell.",
}


def comparison_page(artifact: Artifact[ComparisonPayload], related: Related) -> Page:
    """Say the verdict and its reasons, draw the changes, and list every metric with its interval."""
    payload = artifact.payload
    said = [*payload.reasons, *remarks(payload)]
    metrics: list[Block] = [*_chart(payload), _table(payload, payload.rows)]
    return Page(
        title=title(payload),
        lead=f"confidence {payload.confidence:g}; {payload.resamples:,} resamples; seed {payload.seed}",
        verdict=SENTENCES[payload.verdict],
        outcome=OUTCOMES[payload.verdict],
        figures=[
            Figure(str(verdict), str(count), "deciding metrics", "compared")
            for verdict in Verdict
            if (count := sum(row.confirmatory and row.verdict is verdict for row in payload.rows))
        ],
        sections=[
            *([Section("Reasons", [Lines(said)])] if said else []),
            Section("Metrics", metrics),
            Section("What was compared", [_arms(payload)]),
        ],
    )


def _chart(payload: ComparisonPayload) -> list[Block]:
    """Draw the relative changes of the metrics that decide."""
    rows = [
        row
        for row in payload.rows
        if row.confirmatory and row.effect is Effect.RATIO and row.change is not None
    ]
    if not rows:
        return []
    drawn = bars(
        [
            Bar(f"{row.point} {row.metric}", 100 * (row.change or 0.0), change(row, row.change), _bad(row))
            for row in rows
        ],
        "change, %",
    )
    note = "Coloured: worse, or better, by more than the tolerance."
    return [Chart("Change of head against base, %", drawn, _table(payload, rows), "compared", note)]


def _bad(row: ComparedRow) -> bool:
    return row.verdict in (Verdict.REGRESSED, Verdict.IMPROVED)


def _table(payload: ComparisonPayload, rows: list[ComparedRow]) -> Table:
    note = "What doesn't decide is in brackets."
    return Table(payload.compares, HEADS, [cells(row) for row in rows], "compared", note)


def _arms(payload: ComparisonPayload) -> Table:
    rows = [
        (arm, digest[:12], ", ".join(f"{point}: {runs}" for point, runs in side.runs.items()))
        for arm, side in (("base", payload.base), ("head", payload.head))
        for digest in side.digests
    ]
    return Table("Arms", ("arm", "artifact", "runs of each point"), rows, "compared")
