"""`hgpu deploy`: from a plan to running engines."""

from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def deploy(
    plan: Annotated[str, typer.Argument(help="Plan: path, digest prefix, @ref or latest.")],
    target: Annotated[str, typer.Option(help="Where to: local.")] = "local",
    load_format: Annotated[str, typer.Option(help="auto, or dummy for random weights.")] = "auto",
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait for health.")] = 1200.0,
    keep_on_failure: Annotated[
        bool, typer.Option("--keep-on-failure", help="Leave what runs for inspection where the rest fails.")
    ] = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Start a plan's engines, wait until they are healthy, and prove it with a completion.

    Deploying a plan that runs already changes nothing; after a crash it finishes what is missing.

    Example: hgpu deploy latest
    """
    from hgpu.artifacts.resolve import resolve
    from hgpu.artifacts.reuse import save_once
    from hgpu.artifacts.store import Draft
    from hgpu.deploy.driver import DeployOptions
    from hgpu.deploy.drivers import driver_of
    from hgpu.deploy.record import deployment_payload
    from hgpu.report.deployment import deployed_json, print_deployed
    from hgpu.report.output import note, print_json

    driver = driver_of(target)
    artifact = resolve(results, plan, "plan")
    if plan == "latest":
        note(f"latest plan is {artifact.short} at {artifact.path}")
    deployed = driver.apply(artifact, results, DeployOptions(load_format, timeout, keep_on_failure), note)
    payload = deployment_payload(artifact.payload, deployed, load_format)
    saved = save_once(results, Draft("deployment", payload.name, payload, inputs=[artifact.as_input("plan")]))
    print_json(deployed_json(saved, deployed)) if json else print_deployed(saved, deployed)
