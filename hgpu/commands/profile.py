"""`hgpu profile`: measure each GPU type of a spec."""

from pathlib import Path
from typing import Annotated

import typer

import hgpu.commands.cloud_options as c
from hgpu.commands.options import RESULTS, Json, Results, Spec

app = typer.Typer(add_completion=False)


@app.command()
def profile(
    context: typer.Context,
    spec: Spec,
    gpu: Annotated[
        list[str] | None, typer.Option(help="Only these GPU types of the spec. May be repeated.")
    ] = None,
    profiler: Annotated[
        str,
        typer.Option(help="auto (vllm where attached, else estimate), vllm, endpoint, silicon, estimate."),
    ] = "auto",
    repeats: Annotated[int, typer.Option(min=1, help="Times that each batch is run.")] = 3,
    budget: Annotated[
        float, typer.Option(min=0.0, help="Engine seconds in which uncertain batches are run again.")
    ] = 300.0,
    load_format: Annotated[str, typer.Option(help="auto, or dummy for random weights.")] = "auto",
    url: Annotated[str | None, typer.Option(help="Profile the OpenAI-compatible server at this URL.")] = None,
    kv_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the server's KV cache, where it doesn't say.")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Measure on the Ray cluster at this address, all types at once.")
    ] = None,
    ray_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds in which the cluster must find a node for a GPU type.")
    ] = 60.0,
    point_limit: Annotated[
        float, typer.Option(min=1, help="Seconds in which vLLM must run a batch once; it is stopped then.")
    ] = 900.0,
    mode: Annotated[
        str | None,
        typer.Option(help="offload: record which experts real prompts are routed to, instead of times."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help='Of --mode offload: JSON lines, as {"prompt": "..."}.')
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Of it: prompts that run at once. May be repeated.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Of it: tokens that each prompt is continued by.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of it: sampling temperature.")] = 1.0,
    on: c.On = None,
    bucket: c.Bucket = None,
    install: c.Install = None,
    deadline: c.Deadline = None,
    region: c.Region = None,
    instance_profile: c.InstanceProfile = None,
    secret: c.Secret = None,
    image: c.Image = None,
    security_group: c.SecurityGroup = None,
    subnet: c.Subnet = None,
    poll: c.Poll = None,
    sweep: c.Sweep = False,
    yes: c.Yes = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Time single engine steps of real vLLM over a designed set of batches.

    Of a spec of kind finetune, measures the activations of each way to train on the CPU, on small copies.
    A broken run resumes where it stopped. GPU types that aren't attached are estimated, and say so. With --on
    it rents a machine of each type, after your yes to its cost, measures there, and takes it away.
    `hgpu profile memory` measures this machine's memory instead, and needs no spec.
    With --mode offload it records what an expert cache is planned from: which experts real prompts are routed
    to, and how fast an expert is copied.

    Example: hgpu profile spec.yaml --gpu L4 --load-format dummy
    """
    from hgpu.commands.cloud_request import CloudRequest, refuse_without_on
    from hgpu.commands.job_planning import are_finetunes
    from hgpu.commands.profile_request import Request, RoutingRequest
    from hgpu.report.output import print_json
    from hgpu.report.profile import print_profiles, profiles_json

    if mode is not None or prompts is not None or batch:
        from hgpu.commands.routing_profiling import record_routes, refuse_options

        refuse_options(mode, {"--url": url, "--ray": ray, "--on": on})
        route = RoutingRequest(results, prompts, tuple(batch or ()), tokens, temperature, load_format)
        record_routes(spec, gpu, route, json)
        return
    if are_finetunes([spec]):
        from hgpu.commands.activation_profiling import profile_activations
        from hgpu.commands.misplaced import refuse_other_options
        from hgpu.report.job import activations_json, print_activations

        refuse_other_options(context, ("spec", "results", "json"), "fine-tunes")
        found = profile_activations(spec, results)
        print_json(activations_json(found)) if json else print_activations(found)
        return
    request = Request(
        results, profiler, repeats, budget, load_format, url, kv_tokens, ray, ray_timeout, point_limit
    )
    rented = CloudRequest(
        tuple(on or ()),
        bucket,
        install,
        deadline,
        region,
        instance_profile,
        secret,
        image,
        tuple(security_group or ()),
        subnet,
        poll,
        sweep,
        yes,
    )
    if on:
        from hgpu.commands.cloud_profiling import profile_in_cloud

        artifacts = profile_in_cloud(spec, gpu, request, rented)
        if sweep and not json:
            return
    else:
        from hgpu.commands.profiling import profile_points

        refuse_without_on(rented)
        artifacts = profile_points(spec, gpu, request)
    print_json(profiles_json(artifacts)) if json else print_profiles(artifacts)
