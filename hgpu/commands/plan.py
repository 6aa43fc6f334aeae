"""`hgpu plan`: the minimal-cost allocation."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def plan(
    context: typer.Context,
    spec: Annotated[
        list[Path] | None, typer.Argument(help="Spec files; several are planned together and share limits.")
    ] = None,
    latency: Annotated[
        list[str] | None, typer.Option(help="Latency model: path, digest, @ref or latest. May be repeated.")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Use estimates, also where fits exist.")
    ] = False,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="Plan for several values, as rate=1,4 or rate=1:64. May be repeated."),
    ] = None,
    melange: Annotated[
        Path | None, typer.Option(help="Plan a published Mélange configuration instead.")
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(min=0.5, max=0.999, help="That steps are no slower than planned; 0.5: as predicted."),
    ] = 0.9,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what binds, what it is worth, and the runner-up.")
    ] = False,
    refine: Annotated[
        bool, typer.Option("--refine", help="Simulate the capacities that the plan rests on; kept on disk.")
    ] = False,
    prove: Annotated[
        bool, typer.Option("--prove", help="Tighten until a simulation of the fleet meets the objectives.")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option(help="Prove on this trace; by default the spec's, or Poisson arrivals.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=100, help="Prove on so many requests.")] = None,
    current: Annotated[str, typer.Option(help="The plan that runs now: path, digest or @ref.")] = "",
    change_cost: Annotated[
        float,
        typer.Option(min=0.0, help="USD/h that each start or stop of an engine counts for."),
    ] = 0.0,
    png: Annotated[Path | None, typer.Option(help="Draw the sweep into this file.")] = None,
    activations: Annotated[
        list[str] | None,
        typer.Option(help="Of fine-tunes: measured activations, by default the newest. May be repeated."),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="A plan or a job that runs at the same time: it counts against the limits, too."),
    ] = None,
    gap: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Accept answers proven to be this close to the optimum.")
    ] = 1e-4,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds for the solver.")] = 60.0,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Find the cheapest machines that serve a workload within its objectives, or train by a deadline.

    Operating points that weren't profiled are estimated, and say so. Of a spec of kind finetune, methods,
    GPUs and ways to keep memory compete for the least money. A spec of kind rl is placed: which component on
    which GPUs. Exit code 3 where there is no plan, or --prove finds none that holds.

    Example: hgpu plan spec.yaml --sweep rate=1,4,16,64 --sweep slo.tpot_ms=40,120
    """
    from hgpu.commands.job_planning import JobsAsked, are_finetunes, plan_finetunes
    from hgpu.commands.misplaced import refuse_other_options
    from hgpu.commands.planning import Asked, melange_plan, spec_plans
    from hgpu.commands.planning_rl import is_loop, print_loops
    from hgpu.core.errors import InputError
    from hgpu.report.job import jobs_json, print_jobs
    from hgpu.report.output import print_json
    from hgpu.report.plan import plans_json, print_plans
    from hgpu.report.sweep import cell_json, check_picture, draw_sweep, print_sweep

    if bool(spec) == (melange is not None):
        raise InputError(
            "what to plan isn't clear", "one of SPEC and --melange is needed", "try hgpu plan spec.yaml"
        )
    if spec and is_loop(spec):
        print_loops(context, spec, results, json)
        return
    if spec and are_finetunes(spec):
        taken = ("spec", "activations", "estimate", "beside", "time_limit", "results", "json")
        refuse_other_options(context, taken, "plans of fine-tunes")
        jobs = plan_finetunes(JobsAsked(spec, results, activations or [], estimate, beside or [], time_limit))
        print_json(jobs_json(jobs)) if json else print_jobs(jobs)
        return
    if activations:
        raise InputError("--activations is of fine-tunes", "this is another plan", "drop it")
    if melange is not None:
        refuse_other_options(context, ("spec", "melange", "results", "json"), "Mélange configurations")
        artifact = melange_plan(melange, results)
        print_json(plans_json([artifact])) if json else print_plans([artifact])
        return
    asked = Asked(
        specs=spec or [],
        root=results,
        refs=latency or [],
        estimate=estimate,
        gap=gap,
        time_limit_s=time_limit,
        confidence=confidence,
        explain=explain,
        refine=refine,
        prove=prove,
        trace=trace,
        requests=requests,
        current=current,
        change_usd_per_hour=change_cost,
        beside=beside or [],
    )
    if sweep and len(asked.specs) > 1:
        raise InputError("a sweep is of one spec", f"{len(asked.specs)} are given", "sweep one at a time")
    check_picture(png, bool(sweep))
    cells = spec_plans(asked, sweep or [])
    if png is not None:
        draw_sweep(cells, png)
    if sweep:
        print_json({"sweep": [cell_json(cell) for cell in cells]}) if json else print_sweep(cells)
        return
    plans = [cell.plan for cell in cells]
    print_json(plans_json(plans)) if json else print_plans(plans)
    if any(artifact.payload.proof and not artifact.payload.proof.held for artifact in plans):
        raise typer.Exit(3)
