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
        str, typer.Option(help="Where to: local, kubernetes, aws; with --dry-run also lws, aibrix, sky.")
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
    yes: Annotated[bool, typer.Option("--yes", help="aws: go ahead without asking.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="aws: show what would change, and stop.")] = False,
    no_replan: Annotated[
        bool, typer.Option("--no-replan", help="aws: stop where an offer can't be had; don't plan anew.")
    ] = False,
    security_group: Annotated[
        list[str] | None, typer.Option(help="aws: id; the network's closed default group otherwise.")
    ] = None,
    subnet: Annotated[str | None, typer.Option(help="aws: id; one of the default network otherwise.")] = None,
    private_addresses: Annotated[
        bool, typer.Option("--private-addresses", help="aws: hgpu runs inside the network; ask the engines.")
    ] = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Start a plan's engines, wait until they are healthy, and prove it with a completion.

    Deploying a plan that runs already changes nothing; after a crash it finishes what is missing. On aws it
    shows first what would change and cost, and needs --yes or your word; exit code 3 where machines can't
    be had.

    Example: hgpu deploy latest --target aws --diff
    """
    from hgpu.artifacts.resolve import resolve
    from hgpu.commands.deploying import Aws, Given, aws_deploy, aws_diff, launch, refuse_misplaced
    from hgpu.commands.rendering import write_dry_run
    from hgpu.deploy.driver import DeployOptions
    from hgpu.deploy.drivers import Place, driver_for
    from hgpu.deploy.ec2.options import Ec2Options
    from hgpu.deploy.render.document import render_options
    from hgpu.report.deployment import deployed_json, print_deployed
    from hgpu.report.ec2 import diff_json, launched_json, print_diff, print_launched
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
    waiting = {"load_format": load_format, "timeout_s": timeout, "keep_on_failure": keep_on_failure or None}
    launching: dict[str, Any] = {key: value for key, value in waiting.items() if value is not None}
    asked = Given(
        rendering=given,
        files={"out": out, "crds": crds},
        launching=launching,
        cluster={"context": context, "kubeconfig": kubeconfig, "force-conflicts": force_conflicts},
        aws={
            "yes": yes,
            "diff": diff,
            "no-replan": no_replan,
            "security-group": security_group,
            "subnet": subnet,
            "private-addresses": private_addresses,
        },
    )
    refuse_misplaced(target, dry_run, asked)
    artifact = resolve(results, plan, "plan")
    if plan == "latest":
        note(f"latest plan is {artifact.short} at {artifact.path}")
    if dry_run:
        folder = out or Path("manifests")
        files = write_dry_run(artifact, target, results, folder, given, launching, crds)
        print_json(rendered_json(target, folder, files)) if json else print_rendered(target, folder, files)
        return
    if target == "aws":
        options = render_options(artifact.payload, artifact.short, given)
        chosen = Ec2Options(options, tuple(security_group or ()), subnet, private_addresses, keep_on_failure)
        aws = Aws(results, chosen, timeout, yes, not no_replan)
        if diff:
            found = aws_diff(artifact, aws)
            print_json(diff_json(found)) if json else print_diff(found)
            return
        kept, launched = aws_deploy(artifact, aws)
        print_json(launched_json(kept, launched)) if json else print_launched(kept, launched)
        return
    driver = driver_for(target, Place(context, kubeconfig, namespace), given, force_conflicts)
    saved, deployed = launch(artifact, results, driver, DeployOptions(**launching))
    print_json(deployed_json(saved, deployed)) if json else print_deployed(saved, deployed)
