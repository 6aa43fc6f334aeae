"""`hgpu list`: the artifacts there are."""

from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command(name="list")
def list_artifacts(
    kind: Annotated[str | None, typer.Argument(help="profile, latency, plan, deployment or bench.")] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """List artifacts, newest first.

    Example: hgpu list plan
    """
    from hgpu.artifacts.kinds import kind_of
    from hgpu.artifacts.resolve import entries
    from hgpu.report.artifacts import print_entries
    from hgpu.report.output import print_json

    if kind is not None:
        kind_of(kind)
    found = entries(results, kind)
    if json:
        print_json(
            [{"kind": e.kind, "digest12": e.digest12, "created": e.stamp, "path": str(e.path)} for e in found]
        )
    else:
        print_entries(found, results)
