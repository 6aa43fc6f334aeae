"""Which page each kind of artifact gets; a new kind is one file and one line."""

from collections.abc import Callable
from typing import Any

from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.report.html.anything import any_page
from hgpu.report.html.blocks import Page
from hgpu.report.html.comparison import comparison_page
from hgpu.report.html.job import job_page
from hgpu.report.html.latency import latency_page
from hgpu.report.html.load import load_page
from hgpu.report.html.placement import placement_page
from hgpu.report.html.plan import plan_page
from hgpu.report.html.profile import profile_page
from hgpu.report.html.simulation import simulation_page

PAGES: dict[str, Callable[[Artifact[Any], Related], Page]] = {
    "plan": plan_page,
    "simulation": simulation_page,
    "latency": latency_page,
    "profile": profile_page,
    "load": load_page,
    "comparison": comparison_page,
    "job": job_page,
    "placement": placement_page,
}


def page_of(artifact: Artifact[Any], related: Related) -> Page:
    """Return the page of an artifact; of a kind without one, its payload."""
    return PAGES.get(artifact.manifest.kind, any_page)(artifact, related)
