"""`hgpu supervise`: keep a local deployment alive."""

from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Results

app = typer.Typer(add_completion=False)


@app.command()
def supervise(
    name: Annotated[str, typer.Argument(help="Deployment; see `hgpu status`.")],
    results: Results = RESULTS,
) -> None:
    """Start again what dies or hangs of a deployment, until it is destroyed. `hgpu deploy` runs this itself.

    Example: hgpu supervise llama-3-1-8b-instruct-sharegpt-1a2b3c4d
    """
    from hgpu.deploy.drivers import driver_of
    from hgpu.deploy.state_file import state_folder
    from hgpu.deploy.supervise import Supervisor
    from hgpu.report.output import note

    driver_of("local").status(results, name)  # raises where there is none
    Supervisor(state_folder(results, name), note).run()
