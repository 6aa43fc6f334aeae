"""`hgpu destroy`: take a deployment down."""

from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def destroy(
    name: Annotated[str, typer.Argument(help="Deployment; see `hgpu status`.")],
    target: Annotated[str, typer.Option(help="Where: local.")] = "local",
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Stop every process of a deployment and prove that none is left, also after a crash.

    Example: hgpu destroy llama-3-1-8b-instruct-sharegpt-1a2b3c4d
    """
    from dataclasses import asdict

    from hgpu.deploy.drivers import driver_of
    from hgpu.report.output import console, print_json

    gone = driver_of(target).destroy(results, name)
    if json:
        print_json(asdict(gone))
    else:
        console().print(f"{gone.name} is gone: {gone.killed} processes stopped, none left")
