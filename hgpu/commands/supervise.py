"""`hgpu supervise`: keep a deployment alive."""

from typing import Annotated

import typer

import hgpu.commands.deploy_options as o
from hgpu.commands.options import RESULTS, Results

app = typer.Typer(add_completion=False)


@app.command()
def supervise(
    name: Annotated[str, typer.Argument(help="Deployment; see `hgpu status`.")],
    target: Annotated[str, typer.Option(help="Where it is: local, aws.")] = "local",
    once: Annotated[
        bool, typer.Option("--once", help="aws: one pass; exit code 4 where more are due.")
    ] = False,
    no_replan: o.NoReplan = False,
    every: Annotated[
        float | None, typer.Option(min=1.0, help="aws: seconds between passes; 10 where none are given.")
    ] = None,
    replacements: Annotated[
        int | None, typer.Option(min=0, help="aws: the most that are launched in an hour; 3.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=1.0, help="aws: seconds for a machine to become ready; 1800.")
    ] = None,
    drain: Annotated[
        float | None, typer.Option(min=0.0, help="aws: seconds from a cordon to the machine's end; 60.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Start again what dies or hangs of a deployment, until it is destroyed. Locally, `deploy` runs it.

    On aws, machines that fail or that EC2 announces to take away get replacements, which cost money: run it
    where it can reach AWS, beside the deployment's results folder.

    Example: hgpu supervise chat --target aws --replacements 3
    """
    from hgpu.commands.supervising import Keeping, keep, refuse_aws_options
    from hgpu.core.errors import InputError
    from hgpu.deploy.drivers import AWS, driver_of
    from hgpu.deploy.ec2.driver import Ec2Driver
    from hgpu.deploy.state_file import state_folder
    from hgpu.deploy.supervise import Supervisor
    from hgpu.report.output import note

    if target == AWS:
        asked = Keeping(results, name, once, no_replan, every, replacements, timeout, drain)
        if not keep(asked, Ec2Driver()):
            raise typer.Exit(4)
        return
    given = {"every": every, "replacements": replacements, "timeout": timeout, "drain": drain}
    refuse_aws_options(
        {"once": once, "no-replan": no_replan}
        | {key: str(value) for key, value in given.items() if value is not None}
    )
    if target != "local":
        raise InputError(
            f"nothing supervises on '{target}'", "local and aws have supervisors", "see --target"
        )
    driver_of("local").status(results, name)  # raises where there is none
    Supervisor(state_folder(results, name), note).run()
