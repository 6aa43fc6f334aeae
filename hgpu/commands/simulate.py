"""`hgpu simulate`: proof of a plan before anything is launched."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def simulate(
    plan: Annotated[str, typer.Argument(help="Plan: path, digest prefix, @ref or latest.")],
    trace: Annotated[
        Path | None, typer.Option(help="Replay this trace, stretched to the plan's rate.")
    ] = None,
    rates: Annotated[str, typer.Option(help="Multiples of the plan's rate.")] = "0.5,0.8,1,1.2",
    lose: Annotated[bool, typer.Option(help="Also lose a machine of each pool in turn.")] = False,
    balance: Annotated[str, typer.Option(help="How a pool shares requests out.")] = "power_of_two",
    requests: Annotated[
        int | None, typer.Option(min=2, help="By default 20,000, or the whole trace.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals, lengths and balancing.")] = 0,
    prefix_caching: Annotated[
        bool, typer.Option(help="Reuse the prefixes that the trace's requests share.")
    ] = False,
    ageing_tok_per_s: Annotated[
        float | None,
        typer.Option(help="Admit the shortest prompt first; each second of age counts as so many."),
    ] = None,
    tpot_objective_s: Annotated[
        float | None, typer.Option(help="Let no more prompt tokens into a step than keep this TPOT.")
    ] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Replay a trace against a plan: attainment, utilisation, queueing.

    Exit code 3 where the fleet misses an objective at the plan's own rate.
    Example: hgpu simulate latest --rates 0.8,1,1.2 --lose
    """
    from hgpu.artifacts.resolve import resolve
    from hgpu.commands.simulating import phases_of, prove_plan
    from hgpu.report.output import note, print_json
    from hgpu.report.simulation import print_simulation, simulation_json
    from hgpu.simulator.proof import ProofOptions, breaks_promise, multipliers_of

    artifact = resolve(results, plan, "plan")
    if plan == "latest":
        note(f"latest plan is {artifact.short} at {artifact.path}")
    phases = phases_of(ageing_tok_per_s, tpot_objective_s)
    options = ProofOptions(multipliers_of(rates), lose, balance, requests, seed, prefix_caching, phases)
    saved = prove_plan(artifact, results, trace, options)
    print_json(simulation_json(saved)) if json else print_simulation(saved)
    if breaks_promise(saved.payload):
        raise typer.Exit(3)
