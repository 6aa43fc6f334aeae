"""`hgpu status`: what is deployed, looked at now."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Deployment; all where none is given.")] = None,
    target: Annotated[str, typer.Option(help="Where: local, kubernetes, aws.")] = "local",
    namespace: Annotated[str | None, typer.Option(help="Of Kubernetes; default where none is given.")] = None,
    context: Annotated[str | None, typer.Option(help="Of the kubeconfig; the current by default.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="File; kubectl's own by default.")] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="aws: look here too; needed where the state is lost.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Destroyed ones too.")] = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Show each deployment's processes, health and drift. Changes nothing.

    Exit code 4 where one is degraded: it isn't what its state says, or nobody finishes it.

    Example: hgpu status
    """
    from dataclasses import asdict

    from hgpu.deploy.drivers import Place, watched
    from hgpu.deploy.state import Phase
    from hgpu.report.deployment import print_status
    from hgpu.report.output import print_json

    place = Place(context, kubeconfig, namespace, tuple(region or ()))
    found = watched(target, place).status(results, name, every)
    if json:
        print_json({"deployments": [asdict(row) for row in found]})
    else:
        cluster = target == "kubernetes"
        print_status(found, f"namespace {namespace or 'default'}" if cluster else str(results))
    if any(row.phase is Phase.DEGRADED for row in found):
        raise typer.Exit(4)
