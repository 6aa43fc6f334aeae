"""`hgpu deploy`: from a plan to running engines."""

from pathlib import Path
from typing import Annotated, Any

import typer

import hgpu.commands.deploy_options as o
from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def deploy(
    call: typer.Context,
    plan: Annotated[str, typer.Argument(help="Plan: path, digest prefix, @ref or latest.")],
    target: o.Target = "local",
    load_format: o.LoadFormat = None,
    timeout: o.Timeout = None,
    keep_on_failure: o.KeepOnFailure = False,
    two_engines: o.TwoEngines = False,
    dry_run: o.DryRun = False,
    out: o.Out = None,
    name: o.Name = None,
    namespace: o.Namespace = None,
    image: o.Image = None,
    secret: o.Secret = None,
    autoscale: o.Autoscale = False,
    crds: o.Crds = None,
    command: o.Command = None,
    claim: o.Claim = None,
    context: o.Context = None,
    kubeconfig: o.Kubeconfig = None,
    force_conflicts: o.ForceConflicts = False,
    yes: o.Yes = False,
    diff: o.ShowDiff = False,
    no_replan: o.NoReplan = False,
    security_group: o.SecurityGroup = None,
    subnet: o.Subnet = None,
    private_addresses: o.PrivateAddresses = False,
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
    from hgpu.commands.deploying_batch import batch_of, write_batch
    from hgpu.commands.rendering import write_dry_run
    from hgpu.deploy.driver import DeployOptions
    from hgpu.deploy.drivers import Place, driver_for
    from hgpu.deploy.ec2.options import Ec2Options
    from hgpu.deploy.render.document import refuse_passed_over, render_options
    from hgpu.deploy.render.targets import rendered_target
    from hgpu.report.deployment import deployed_json, print_deployed
    from hgpu.report.ec2 import diff_json, launched_json, print_diff, print_launched
    from hgpu.report.output import note, print_json
    from hgpu.report.rendered import print_rendered, rendered_json

    folder = out or Path("manifests")
    batch = batch_of(results, plan)
    if batch is not None:
        files, by_hand = write_batch(call, batch, target, folder, crds, call.params)
        document = rendered_json(target, folder, files)
        print_json(document) if json else print_rendered(target, folder, files, by_hand)
        return
    refuse_passed_over([n for n, v in (("command", command), ("claim", claim)) if v], "of a job")
    rendering = {
        "name": name,
        "namespace": namespace,
        "image": image,
        "secret": secret,
        "autoscale": autoscale or None,
    }
    given = {key: value for key, value in rendering.items() if value is not None}
    waiting = {
        "load_format": load_format,
        "timeout_s": timeout,
        "keep_on_failure": keep_on_failure or None,
        "two_engines": two_engines or None,
    }
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
        files = write_dry_run(artifact, target, results, folder, given, launching, crds)
        by_hand = rendered_target(target).command(folder)
        document = rendered_json(target, folder, files)
        print_json(document) if json else print_rendered(target, folder, files, by_hand)
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
