"""`hgpu deploy`: from a plan to running engines."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def deploy(
    plan: Annotated[str, typer.Argument(help="Plan: path, digest prefix, @ref or latest.")],
    target: Annotated[
        str, typer.Option(help="Where to: local, kubernetes; with --dry-run also lws, aibrix, sky, aws.")
    ] = "local",
    load_format: Annotated[
        str | None, typer.Option(help="auto where none is given, or dummy for random weights.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=1.0, help="Seconds to wait for health; 1200 where none are given.")
    ] = None,
    keep_on_failure: Annotated[
        bool, typer.Option("--keep-on-failure", help="Leave what runs for inspection where the rest fails.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Launch nothing: write the target's objects to --out.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for a dry run; new or empty.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the deployment; the service's by default.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Of Kubernetes; default where none is given.")] = None,
    image: Annotated[
        str | None, typer.Option(help="Container image with vLLM; vLLM's own by default.")
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(help="Name of the target's secret with HF_TOKEN and VLLM_API_KEY; hgpu-secrets."),
    ] = None,
    autoscale: Annotated[bool, typer.Option("--autoscale", help="Add an autoscaler to each pool.")] = False,
    crds: Annotated[
        Path | None, typer.Option(help="Folder of custom resource definitions to check against.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Of the kubeconfig; the current by default.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="File; kubectl's own by default.")] = None,
    force_conflicts: Annotated[
        bool, typer.Option("--force-conflicts", help="Take over fields that others manage in the cluster.")
    ] = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Start a plan's engines, wait until they are healthy, and prove it with a completion.

    Deploying a plan that runs already changes nothing; after a crash it finishes what is missing.

    Example: hgpu deploy latest --target kubernetes --dry-run --out manifests
    """
    from hgpu.artifacts.resolve import resolve
    from hgpu.artifacts.reuse import save_once
    from hgpu.artifacts.store import Draft
    from hgpu.commands.rendering import write_dry_run
    from hgpu.deploy.driver import DeployOptions
    from hgpu.deploy.drivers import driver_for
    from hgpu.deploy.record import deployment_payload
    from hgpu.deploy.render.document import refuse_passed_over, refuse_rendering
    from hgpu.deploy.render.targets import require_launched
    from hgpu.report.deployment import deployed_json, print_deployed
    from hgpu.report.output import note, print_json
    from hgpu.report.rendered import print_rendered, rendered_json

    rendering = {
        "name": name,
        "namespace": namespace,
        "image": image,
        "secret": secret,
        "autoscale": autoscale or None,
    }
    given = {key: value for key, value in rendering.items() if value is not None}
    launching = {"load_format": load_format, "timeout_s": timeout, "keep_on_failure": keep_on_failure or None}
    reaching = {"context": context, "kubeconfig": kubeconfig, "force_conflicts": force_conflicts or None}
    chosen: dict[str, Any] = {key: value for key, value in launching.items() if value is not None}
    if not dry_run:
        require_launched(target)
        written = [*(["out"] if out else []), *(["crds"] if crds else [])]
        refuse_rendering([*(given if target == "local" else []), *written])
        driver = driver_for(target, context, kubeconfig, given, force_conflicts)
    artifact = resolve(results, plan, "plan")
    if plan == "latest":
        note(f"latest plan is {artifact.short} at {artifact.path}")
    if dry_run:
        folder = out or Path("manifests")
        refuse_passed_over([name for name, value in reaching.items() if value is not None], "of a launch")
        files = write_dry_run(artifact, target, results, folder, given, chosen, crds)
        print_json(rendered_json(target, folder, files)) if json else print_rendered(target, folder, files)
        return
    deployed = driver.apply(artifact, results, options := DeployOptions(**chosen), note)
    payload = deployment_payload(artifact.payload, deployed, options.load_format)
    saved = save_once(results, Draft("deployment", payload.name, payload, inputs=[artifact.as_input("plan")]))
    print_json(deployed_json(saved, deployed)) if json else print_deployed(saved, deployed)
