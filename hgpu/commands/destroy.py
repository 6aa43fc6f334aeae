"""`hgpu destroy`: take a deployment down."""

from typing import Annotated

import typer

import hgpu.commands.deploy_options as o
from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def destroy(
    name: Annotated[str, typer.Argument(help="Deployment; see `hgpu status`.")],
    target: o.Watched = "local",
    namespace: o.Namespace = None,
    context: o.Context = None,
    kubeconfig: o.Kubeconfig = None,
    region: o.Region = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Stop every process or machine of a deployment and prove that none is left, also after a crash.

    Example: hgpu destroy llama-3-1-8b-instruct-sharegpt-1a2b3c4d
    """
    from dataclasses import asdict

    from hgpu.deploy.drivers import Place, watched
    from hgpu.report.output import console, print_json

    place = Place(context, kubeconfig, namespace, tuple(region or ()))
    gone = watched(target, place).destroy(results, name)
    if json:
        print_json(asdict(gone))
    else:
        console().print(f"{gone.name} is gone: {gone.killed} {gone.noun} stopped, none left")
