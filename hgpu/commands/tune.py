"""`hgpu tune`: a fine-tune that really runs."""

import sys
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def tune(
    job: Annotated[
        str,
        typer.Argument(help="Spec file of kind finetune, or a planned job: latest, @name, digest or folder."),
    ],
    put: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field in the spec's place, as method=lora; may be given again."),
    ] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Fine-tune a model on this machine, on its GPUs where it has some: full, LoRA or LaMDA.

    It starts a process for each of `data_parallel` devices. On several machines, call it on each with
    HGPU_NODES, HGPU_NODE_RANK (from 0) and HGPU_LEADER_ADDRESS set.

    A spec that lists variants needs one of each by --set, or a plan that has chosen: hgpu plan, and then
    hgpu tune latest.

    Run it again after any end, and it goes on from its last checkpoint to the same losses.

    Example: hgpu tune finetune.yaml --set method=lamda --set rank=32
    """
    from hgpu.commands.tuning import overrides, read_what, shown
    from hgpu.report.output import note, print_json
    from hgpu.report.tuning import print_tuning, tuning_json
    from hgpu.tuning.job import job_of
    from hgpu.tuning.launch import ending_together, launch, starts_processes
    from hgpu.tuning.ranks import joined
    from hgpu.tuning.run import tune as run

    with ending_together():
        spec, plan = read_what(job, overrides(put or []), results)
        chosen = job_of(spec)
        if starts_processes(chosen.data_parallel):
            launch(sys.argv[1:], chosen.data_parallel)
            return
        with joined(chosen.data_parallel) as ranks, shown(ranks) as progress:
            artifact = run(chosen, results, progress, note, ranks, plan)
        if artifact is not None:
            print_json(tuning_json(artifact)) if json else print_tuning(artifact)
