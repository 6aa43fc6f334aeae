"""From a page's blocks to one HTML document that loads nothing."""

import itertools
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from hgpu.artifacts.related import Related
from hgpu.artifacts.store import Artifact
from hgpu.report.artifacts import provenance_of
from hgpu.report.html.blocks import Heat, Page
from hgpu.report.html.pages import page_of
from hgpu.report.html.theme import numbered


def html_report(artifact: Artifact[Any], related: Related, links: Mapping[str, str] | None = None) -> str:
    """Return the page of an artifact as HTML; the same artifacts give the same bytes.

    `links` maps digests of related artifacts to the pages that lie beside this one.
    """
    return rendered(page_of(artifact, related), artifact, related, links or {})


def rendered(page: Page, artifact: Artifact[Any], related: Related, links: Mapping[str, str]) -> str:
    """Return `page` as HTML, with the artifact's validity at the top and its lineage at the bottom."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hgpu.report.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = itertools.count(1)

    def drawing(svg: Markup) -> Markup:
        return numbered(svg, next(numbers))

    environment.filters["drawing"] = drawing
    environment.filters["provenance"] = provenance_of
    environment.tests["heat"] = lambda cell: isinstance(cell, Heat)
    template = environment.get_template("page.html")
    return template.render(
        page=page, manifest=artifact.manifest, artifact=artifact, related=related, links=links
    )
