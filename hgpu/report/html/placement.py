"""The page of a placed reinforcement-learning loop: who runs where, and what other modes would take."""

from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.report.html.blocks import Chart, Figure, Lines, Page, Section, from_terminal
from hgpu.report.html.draw import Bar, bars
from hgpu.report.output import usd
from hgpu.report.placement import (
    alternatives_table,
    answer_text,
    binding_table,
    components_table,
    pools_table,
    seconds,
    total_text,
)


def placement_page(artifact: Artifact[PlacementPayload], related: Related) -> Page:
    """Draw what an iteration of each mode takes and costs, and list components, pools and what binds."""
    payload = artifact.payload
    source = str(payload.provenance)
    missed = [f"not considered: {text}" for text in payload.missing]
    return Page(
        title=payload.name,
        lead=f"workflow {payload.workflow}{total_text(payload)}",
        verdict=answer_text(payload),
        outcome="good",
        figures=[
            Figure("an iteration", seconds(payload.iteration_s), "s", source),
            Figure("an iteration costs", usd(payload.usd_per_iteration), "USD", source),
            Figure("rent", usd(payload.usd_per_hour), "USD/h", source),
        ],
        sections=[
            Section(
                "Placement",
                [from_terminal(components_table(payload), source), from_terminal(pools_table(payload))],
            ),
            Section("Other modes", [_modes(payload, source)]),
            Section(
                "Why",
                [
                    from_terminal(binding_table(payload)),
                    Lines([f"model: {payload.model}", *missed]),
                ],
            ),
        ],
    )


def _modes(payload: PlacementPayload, source: str) -> Chart:
    """Return a bar a mode and number of stages: its best placement, the chosen one first."""
    drawn: dict[str, Bar] = {}
    for row in payload.alternatives:
        if row.iteration_s is not None and row.usd_per_iteration is not None:
            name = f"{row.mode}, {row.stages} stages" if row.stages > 1 else row.mode
            text = f"{usd(row.usd_per_iteration)} USD, {seconds(row.iteration_s)} s"
            drawn.setdefault(name, Bar(name, row.usd_per_iteration, text, chosen=not drawn))
    rows = bars(list(drawn.values()), "USD")
    return Chart("Cost of an iteration, USD", rows, from_terminal(alternatives_table(payload)), source)
