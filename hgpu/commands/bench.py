"""`hgpu bench`: load on a deployment."""

from typing import Annotated

import typer

from hgpu.commands.bench_run import run
from hgpu.commands.bench_search import search
from hgpu.commands.bench_selftest import selftest
from hgpu.commands.options import RESULTS, Json, Results

app = typer.Typer(add_completion=False, help="Put load on a server.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Put load on a server: points of load, the highest rate within an objective, a plan's own workload."""


app.command()(run)
app.command()(search)
app.command()(selftest)


@app.command()
def verify(
    plan: Annotated[str, typer.Argument(help="Plan: path, digest prefix, @ref or latest.")],
    url: Annotated[str, typer.Argument(help="Where the deployment answers; see `hgpu status`.")],
    duration: Annotated[float, typer.Option(min=1.0, help="Seconds of load.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals and lengths.")] = 0,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Send the plan's workload at the plan's rate, and print predicted beside measured.

    Example: hgpu bench verify latest http://127.0.0.1:8000 --duration 60
    """
    from hgpu.artifacts.resolve import resolve
    from hgpu.artifacts.store import Draft, save
    from hgpu.bench.verify import verify as compare
    from hgpu.core.errors import InvalidMeasurement
    from hgpu.report.bench import bench_json, print_bench
    from hgpu.report.output import print_json
    from hgpu.report.progress import progress_of
    from hgpu.runtime.completion import served_model

    artifact = resolve(results, plan, "plan")
    with progress_of("bench verify") as progress:
        verified = compare(
            artifact.payload,
            url,
            served_model(url),
            duration,
            seed,
            lambda done, total: progress(done, total, "requests"),
        )
    draft = Draft(
        "bench",
        artifact.payload.service,
        verified.payload,
        inputs=[artifact.as_input("plan")],
        validity=verified.validity,
    )
    saved = save(results, draft)
    print_json(bench_json(saved)) if json else print_bench(saved)
    if not verified.validity.valid:
        raise InvalidMeasurement(
            "the measurement isn't valid", "; ".join(verified.validity.reasons), "see the reasons above"
        )
