"""The page of a kind that has no page of its own: its payload, folded."""

from typing import Any

from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.report.artifacts import provenance_of
from hgpu.report.html.blocks import Figure, Page, Section, Tree


def any_page(artifact: Artifact[Any], related: Related) -> Page:
    """Show a payload as it is."""
    manifest = artifact.manifest
    source = provenance_of(artifact)
    title = artifact.path.name.partition("-")[2].removesuffix(f"-{artifact.short}") or manifest.kind
    return Page(
        title=title,
        lead=f"{manifest.kind}, schema version {manifest.schema_version}",
        figures=[Figure("source", source, "", "as the artifact says")] if source else [],
        sections=[Section("Payload", [Tree("Payload", manifest.payload)])],
    )
