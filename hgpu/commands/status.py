"""`hgpu status`: what is deployed, looked at now."""

from typing import Annotated

import typer

import hgpu.commands.deploy_options as o
from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Deployment; all where none is given.")] = None,
    target: o.Watched = "local",
    namespace: o.Namespace = None,
    context: o.Context = None,
    kubeconfig: o.Kubeconfig = None,
    region: o.Region = None,
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
