"""`hgpu tune`: a fine-tune that really runs."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def tune(
    spec: Annotated[Path, typer.Argument(help="Spec file of kind finetune; see `hgpu init finetune`.")],
    put: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field in the spec's place, as method=lora; may be given again."),
    ] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Fine-tune a model on this machine, on its GPU where there is one: full, LoRA or LaMDA.

    Run it again after any end, and it goes on from its last checkpoint to the same losses.

    Example: hgpu tune finetune.yaml --set method=lamda --set rank=32
    """
    from hgpu.commands.tuning import overrides
    from hgpu.report.output import note, print_json
    from hgpu.report.progress import progress_of
    from hgpu.report.tuning import print_tuning, tuning_json
    from hgpu.specs.finetune import FinetuneSpec
    from hgpu.specs.load import load_kind
    from hgpu.tuning.job import job_of
    from hgpu.tuning.run import tune as run

    job = job_of(load_kind(spec, FinetuneSpec, overrides(put or [])))
    with progress_of("tune") as progress:
        artifact = run(job, results, progress, note)
    print_json(tuning_json(artifact)) if json else print_tuning(artifact)
