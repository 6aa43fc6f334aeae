"""`hgpu autoscale`: how many engines of each pool the load asks for, now and in a moment."""

from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def autoscale(
    plan: Annotated[str, typer.Argument(help="Plan: path, digest prefix, @ref or latest.")],
    metrics: Annotated[
        list[str],
        typer.Option(
            help="[POOL=]URL of an engine's /metrics, or of a name that stands for all of a pool's."
        ),
    ],
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to serve the counts on, as AIBrix's GPU optimizer.")
    ] = "",
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds from look to look.")] = 30.0,
    startup: Annotated[
        float, typer.Option(min=0.0, help="Seconds from a machine's order until its engine answers.")
    ] = 240.0,
    hold: Annotated[
        float, typer.Option(min=0.0, help="Seconds that a lower need must last before engines go.")
    ] = 600.0,
    most: Annotated[
        list[str] | None, typer.Option("--max", help="POOL=N: never more engines. May be repeated.")
    ] = None,
    budget: Annotated[float | None, typer.Option(min=0.0, help="USD/h that the engines may cost.")] = None,
    change_cost: Annotated[
        float, typer.Option(min=0.0, help="USD/h that each start or stop of an engine counts for.")
    ] = 0.05,
    name: Annotated[
        str, typer.Option(help="Name of the deployment, as given to `hgpu deploy`; by default the plan's.")
    ] = "",
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace of the deployment.")] = "default",
    once: Annotated[bool, typer.Option("--once", help="Look twice, print one decision, and end.")] = False,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Watch the load, forecast it, solve again, and say or serve what each pool is to have. Starts nothing.

    Without --once it goes on until it is interrupted. Exit code 3 where --once finds no allocation, or caps
    that allow less than the load asks for.

    Example: hgpu autoscale latest --metrics http://10.0.0.7:8000 --listen 0.0.0.0:8080
    """
    import asyncio

    from hgpu.commands.autoscaling import Asked, decide_once, watch_on
    from hgpu.core.errors import InputError
    from hgpu.report.autoscale import decision_json, print_decision
    from hgpu.report.output import print_json
    from hgpu.runtime.control.goal import Outcome

    if json and not once:
        raise InputError("--json is of one decision", "without --once there are many", "add --once")
    if once and listen:
        raise InputError("--once and --listen contradict each other", "", "drop one of them")
    asked = Asked(
        plan=plan,
        root=results,
        metrics=metrics,
        interval_s=interval,
        startup_s=startup,
        hold_s=hold,
        most=most or [],
        budget_usd_per_hour=budget,
        change_usd_per_hour=change_cost,
        name=name,
        namespace=namespace,
    )
    if not once:
        asyncio.run(watch_on(asked, listen))
        return
    decided = asyncio.run(decide_once(asked))
    print_json(decision_json(decided)) if json else print_decision(decided)
    if decided.decision.outcome is not Outcome.SOLVED:
        raise typer.Exit(3)
