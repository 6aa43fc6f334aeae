"""`hgpu profile memory`: measure this machine's memory nodes."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False)


@app.command()
def memory(
    node: Annotated[
        list[int] | None, typer.Option(help="Only this memory node; repeatable. All by default.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Times that everything is measured.")] = 5,
    array_mib: Annotated[
        int | None,
        typer.Option(min=1, help="MiB of an array; 4 times the caches and 256 MiB at least by default."),
    ] = None,
    adam: Annotated[
        list[float] | None,
        typer.Option(
            min=0.001, help="Million elements of an Adam step; repeatable. 1, 5, 20, 67 by default."
        ),
    ] = None,
    sysfs: Annotated[
        Path | None,
        typer.Option(help="Describe another machine by its recorded /sys; nothing is measured."),
    ] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Measure this machine's memory: bandwidth by node and threads, Adam by size, pinned copies to GPUs.

    Nodes without CPUs are candidates for CXL. Exit code 4 where repeats differ too much to be believed.

    Example: hgpu profile memory --adam 1 --adam 20
    """
    from hgpu.commands.memory_profiling import describe_and_save, measure_and_save
    from hgpu.profilers.memory import ADAM_ELEMENTS, MemoryJob
    from hgpu.report.memory import memory_json, print_memory
    from hgpu.report.output import note, print_json

    if sysfs is not None:
        artifact = describe_and_save(results, sysfs)
    else:
        job = MemoryJob(
            nodes=tuple(node) if node else None,
            repeats=repeats,
            array_bytes=array_mib and array_mib * 2**20,
            adam_elements=tuple(round(millions * 1e6) for millions in adam) if adam else ADAM_ELEMENTS,
        )
        artifact = measure_and_save(results, job)
    print_json(memory_json(artifact)) if json else print_memory(artifact)
    reasons = artifact.manifest.validity.reasons
    if reasons:
        note(f"kept, but not to be believed: {'; '.join(reasons)}")
        raise typer.Exit(4)
