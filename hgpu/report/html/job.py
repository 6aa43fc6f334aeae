"""The page of a planned training job: the choice beside runners-up, memory over a step, what binds."""

from hgpu.artifacts.payloads.job import JobPayload
from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.report.html.blocks import Block, Chart, Figure, Lines, Page, Section, Table, from_terminal
from hgpu.report.html.draw import Bar, bars
from hgpu.report.job import (
    GIB,
    answer_text,
    asked_text,
    binding_table,
    choices_table,
    counts_text,
    hours_text,
    memory_table,
    placement_table,
    refused_table,
    run_text,
    source_text,
    step_table,
)
from hgpu.report.output import usd


def job_page(artifact: Artifact[JobPayload], related: Related) -> Page:
    """Draw what the ways to train cost, and what each GPU holds at each moment of a step."""
    payload = artifact.payload
    memory, time = str(payload.activations.provenance), str(payload.provenance)
    return Page(
        title=payload.name,
        lead=asked_text(payload),
        verdict=answer_text(payload),
        outcome="good",
        figures=[
            Figure("cost", usd(payload.choice.cost_usd), "USD", time),
            Figure("time", hours_text(payload.choice.hours), "", time),
            Figure("a GPU holds at most", f"{payload.choice.memory_bytes / GIB:.1f}", "GiB", memory),
        ],
        sections=[
            Section("Ways to train", [_costs(payload, time)]),
            Section("A step", [from_terminal(step_table(payload), time)]),
            Section(
                "Memory", [_memory(payload, memory), *_filled([from_terminal(placement_table(payload))])]
            ),
            Section(
                "Why",
                [
                    from_terminal(binding_table(payload)),
                    *_filled([from_terminal(refused_table(payload))]),
                    Lines([counts_text(payload), source_text(payload), run_text(payload)]),
                ],
            ),
        ],
    )


def _costs(payload: JobPayload, source: str) -> Block:
    rows = [
        Bar(
            f"{row.variant.gpus}× {row.gpu}, {row.variant.name}",
            row.cost_usd,
            f"{usd(row.cost_usd)} USD",
            chosen=row is payload.choice,
        )
        for row in (payload.choice, *payload.alternatives)
    ]
    data = from_terminal(choices_table(payload), source)
    return Chart("Cost of the job, USD", bars(rows, "USD"), data, source)


def _memory(payload: JobPayload, source: str) -> Block:
    rows = []
    for row in payload.memory:
        held = sum(row.device.values()) / GIB
        rows.append(Bar(row.moment, held, f"{held:.1f} GiB"))
    data = from_terminal(memory_table(payload), source)
    title = f"What a GPU holds over a step, GiB of {payload.device_capacity_bytes / GIB:.1f}"
    return Chart(title, bars(rows, "GiB"), data, source)


def _filled(tables: list[Table]) -> list[Table]:
    return [table for table in tables if table.rows]
