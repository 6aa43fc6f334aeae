"""`hgpu plan`: the minimal-cost allocation."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def plan(
    spec: Annotated[Path | None, typer.Argument(help="Spec file; write one with `hgpu init serve`.")] = None,
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
    gap: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Accept answers this close to the optimum.")
    ] = 0.0,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds for the solver.")] = 60.0,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Find the cheapest machines that serve a workload within its objectives.

    Operating points that weren't profiled are estimated, and say so.

    Example: hgpu plan spec.yaml --sweep rate=1,4,16,64 --sweep slo.tpot_ms=40,120
    """
    from hgpu.commands.planning import melange_plan, spec_plans
    from hgpu.core.errors import InputError
    from hgpu.report.output import print_json
    from hgpu.report.plan import cell_json, plan_json, print_plan, print_sweep

    if (spec is None) == (melange is None):
        raise InputError(
            "what to plan isn't clear", "one of SPEC and --melange is needed", "try hgpu plan spec.yaml"
        )
    if melange is not None:
        artifact = melange_plan(melange, results)
        print_json(plan_json(artifact)) if json else print_plan(artifact)
        return
    assert spec is not None
    cells = spec_plans(spec, sweep or [], results, latency or [], estimate, gap, time_limit)
    if not sweep:
        cell = cells[0]
        if cell.error is not None:
            raise cell.error
        assert cell.artifact is not None
        print_json(plan_json(cell.artifact)) if json else print_plan(cell.artifact)
    elif json:
        print_json({"sweep": [cell_json(cell) for cell in cells]})
    else:
        print_sweep(cells)
