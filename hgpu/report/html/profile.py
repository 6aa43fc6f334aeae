"""The page of a profile: the steps, what the cards did meanwhile, and the fits made from them."""

from hgpu.artifacts.payloads.latency import LatencyPayload
from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.latency.select import samples_of
from hgpu.report.html.blocks import Block, Figure, Lines, Page, Section, Table, from_terminal
from hgpu.report.html.latency import fit_blocks
from hgpu.report.html.steps import steps_chart
from hgpu.report.latency import errors_table
from hgpu.report.profile import cards_table, profiles_table


def profile_page(artifact: Artifact[ProfilePayload], related: Related) -> Page:
    """Draw a profile's steps, and the newest fit to them that is in the store."""
    payload = artifact.payload
    source = str(payload.provenance)
    taken = from_terminal(profiles_table([artifact]), source, title="How it was taken")
    return Page(
        title=f"{payload.model.name} on {payload.point.name}",
        lead=f"profile by {payload.profiler}, {payload.point.formats}, {payload.point.mode}",
        figures=[
            Figure("steps", f"{payload.samples:,}", "samples", source),
            Figure("noise", f"{payload.noise:.1%}", "median spread of repeats", source),
            Figure("KV cache", f"{payload.kv_capacity_tokens:,}", "tokens", source),
        ],
        sections=[
            Section("Steps", [steps_chart(samples_of(artifact), source), taken]),
            Section("Fit", _fits(artifact, related)),
            Section("Cards", _cards(artifact, source)),
            *_assumed(payload),
        ],
    )


def _fits(artifact: Artifact[ProfilePayload], related: Related) -> list[Block]:
    fits: list[Artifact[LatencyPayload]] = related.made("latency")
    if not fits:
        return [Lines(["No fit of this profile is in the store; hgpu fit makes one."])]
    return [
        *fit_blocks(fits[0], [artifact]),
        from_terminal(errors_table(fits), str(fits[0].payload.latency.provenance)),
    ]


def _cards(artifact: Artifact[ProfilePayload], source: str) -> list[Block]:
    cards = from_terminal(cards_table([artifact]), source)
    if cards.rows:
        return [Table("What each card did over all runs", cards.columns, cards.rows, cards.source)]
    return [Lines(["No card was read while it measured."])]


def _assumed(payload: ProfilePayload) -> list[Section]:
    if not payload.assumptions:
        return []
    rows = [[name, f"{value:g}"] for name, value in payload.assumptions.items()]
    return [Section("Assumptions", [Table("Assumed, not measured", ["what", ">value"], rows, "assumed")])]
