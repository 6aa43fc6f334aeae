"""`hgpu report`: an artifact as a page to look at."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def report(
    ref: Annotated[str, typer.Argument(help="Path, digest prefix, @ref or latest.")],
    out: Annotated[
        Path | None, typer.Option(help="The page; by default <kind>-<digest>.html in this folder.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only artifacts of this kind.")] = None,
    open_related: Annotated[
        bool,
        typer.Option("--open-related", help="Also write the pages of its lineage beside it, and link them."),
    ] = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Write one self-contained HTML page: it opens by double click and loads nothing.

    Example: hgpu report latest --kind plan --out plan.html
    """
    from dataclasses import asdict

    from hgpu.artifacts.resolve import resolve
    from hgpu.commands.reporting import write_pages
    from hgpu.report.output import note, print_json

    artifact = resolve(results, ref, kind)
    if ref == "latest":
        note(f"latest is {artifact.manifest.kind} {artifact.short} at {artifact.path}")
    written = write_pages(results, artifact, out, open_related)
    if json:
        print_json({"pages": [asdict(page) for page in written]})
    else:
        print("\n".join(page.path for page in written))
