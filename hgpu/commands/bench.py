"""`hgpu bench`: load on a deployment."""

from pathlib import Path
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
    from hgpu.report.bench import bench_json, print_bench
    from hgpu.report.output import note, print_json
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
        note(f"the measurement isn't valid: {'; '.join(verified.validity.reasons)}")
        raise typer.Exit(4)


@app.command()
def compare(
    base: Annotated[
        str, typer.Argument(help="Path, digest prefix or @ref; several with commas between.")
    ] = "",
    head: Annotated[str, typer.Argument(help="The same, of what is to be judged.")] = "",
    more_base: Annotated[
        list[str] | None, typer.Option("--base", help="One more of BASE; repeatable.")
    ] = None,
    more_head: Annotated[
        list[str] | None, typer.Option("--head", help="One more of HEAD; repeatable.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Accept that this key differs, as `engine`; repeatable.")
    ] = None,
    tolerance: Annotated[
        list[str] | None, typer.Option(help="A tolerance, as ttft_p99=0.15; repeatable.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Decide by this metric instead of the usual ones; repeatable.")
    ] = None,
    like_with_like: Annotated[
        bool, typer.Option("--aa", help="Both arms are the same thing: learn its noise from the comparison.")
    ] = False,
    kind: Annotated[
        str | None, typer.Option(help="What an @ref is of, where it names several kinds.")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="Folder of earlier comparisons; by default the results.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=200, help="Bootstrap resamples.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    markdown: Annotated[Path | None, typer.Option(help="Write the comparison as Markdown.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the comparison as JUnit XML.")] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Say whether HEAD is worse than BASE: load tests by statistics; plans, fits and simulations exactly.

    Exit code 0 ok or improved, 3 regressed, 4 invalid or not comparable, 5 inconclusive. Markdown is also
    appended to $GITHUB_STEP_SUMMARY where that is set.

    Example: hgpu bench compare @main 1f2e,3d4c,5b6a --markdown verdict.md
    """
    from hgpu.bench.judging import GateOptions
    from hgpu.bench.verdicts import EXIT_CODES
    from hgpu.commands.comparing import compared, tolerances_of, write_files
    from hgpu.report.comparison import comparison_json, print_comparison
    from hgpu.report.output import print_json

    options = GateOptions(
        allow=allow or [],
        tolerances=tolerances_of(tolerance or []),
        confirmatory=metric or [],
        like_with_like=like_with_like,
        resamples=resamples,
        seed=seed,
    )
    arms = [[first, *(more or [])] for first, more in ((base, more_base), (head, more_head))]
    made = compared(results, arms[0], arms[1], options, history or results, kind)
    print_json(comparison_json(made)) if json else print_comparison(made)
    write_files(made.payload, markdown, junit)
    raise typer.Exit(EXIT_CODES[made.payload.verdict])


@app.command()
def bless(
    refs: Annotated[
        str, typer.Argument(metavar="REF", help="Path, digest prefix or @ref; several with commas.")
    ],
    name: Annotated[str, typer.Argument(help="What to call it: @NAME means it from now on.")],
    kind: Annotated[
        str | None, typer.Option(help="What an @ref is of, where it names several kinds.")
    ] = None,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Make @NAME stand for an artifact, or for the runs of a load test together. A hand does this, never CI.

    Example: hgpu bench bless 1f2e,3d4c,5b6a main
    """
    from hgpu.bench.bless import bless as bless_as
    from hgpu.commands.comparing import artifacts_of
    from hgpu.report.output import print_json

    chosen = artifacts_of(results, [refs], "artifact", kind)
    path = bless_as(results, chosen, name)
    digests = [artifact.digest for artifact in chosen]
    if json:
        print_json({"name": name, "kind": chosen[0].manifest.kind, "digests": digests, "path": str(path)})
    else:
        print(f"@{name} is {chosen[0].manifest.kind} {', '.join(d[:12] for d in digests)}")
