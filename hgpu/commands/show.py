"""`hgpu show`: an artifact, or where it comes from."""

from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def show(
    ref: Annotated[str, typer.Argument(help="Path, digest prefix, @ref or latest.")],
    kind: Annotated[str | None, typer.Option(help="Only artifacts of this kind.")] = None,
    lineage: Annotated[bool, typer.Option("--lineage", help="Walk back to the measurements.")] = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Show an artifact, verified, and with --lineage what it was made from.

    Example: hgpu show latest --lineage
    """
    from hgpu.artifacts.lineage import lineage as walk
    from hgpu.artifacts.resolve import resolve
    from hgpu.report.artifacts import lineage_json, print_artifact, print_lineage
    from hgpu.report.output import note, print_json

    artifact = resolve(results, ref, kind)
    if ref == "latest":
        note(f"latest is {artifact.manifest.kind} {artifact.short} at {artifact.path}")
    if lineage:
        tree = walk(results, artifact)
        print_json(lineage_json(tree)) if json else print_lineage(tree)
    elif json:
        print_json(artifact.manifest.model_dump(mode="json"))
    else:
        print_artifact(artifact)
