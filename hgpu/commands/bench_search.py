"""`hgpu bench search`: the highest rate that meets the objectives."""

from typing import Annotated

import typer

from hgpu.commands.bench_run import (
    Api,
    Arrivals,
    Burstiness,
    E2e,
    ErrorRate,
    Label,
    Lag,
    Lengths,
    Model,
    Percentile,
    Seed,
    SelftestFirst,
    Timeout,
    Tpot,
    Ttft,
    Url,
    Workers,
)
from hgpu.commands.options import RESULTS, Json, Results


def search(
    url: Url,
    lengths: Lengths = "chat",
    slo_ttft_ms: Ttft = None,
    slo_tpot_ms: Tpot = None,
    slo_e2e_ms: E2e = None,
    percentile: Percentile = 99.0,
    arrivals: Arrivals = "poisson",
    start: Annotated[float, typer.Option(min=0.001, help="Rate to begin with, in requests/s.")] = 1.0,
    max_rate: Annotated[float, typer.Option(min=0.001, help="Rate to end with.")] = 10_000.0,
    precision: Annotated[float, typer.Option(min=0.001, help="How near the bounds come, relative.")] = 0.05,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds of a point, at least.")] = 30.0,
    max_duration: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds of a point, at most: a high percentile needs many requests."),
    ] = 300.0,
    burstiness: Burstiness = 1.0,
    model: Model = None,
    api: Api = "completions",
    seed: Seed = 0,
    timeout: Timeout = 300.0,
    max_error_rate: ErrorRate = 0.01,
    max_lag_ms: Lag = None,
    workers: Workers = None,
    label: Label = None,
    selftest: SelftestFirst = True,
    results: Results = RESULTS,
    json: Json = False,
) -> None:
    """Find the highest rate that keeps the objectives, by bisection, and print the curve of what was sent.

    A broken search resumes. Exit codes: 3 where even the lowest rate breaks an objective, 4 where the
    measurement is invalid, 5 where too few requests fit --max-duration to tell.

    Example: hgpu bench search http://127.0.0.1:8000 --lengths chat --slo-ttft-ms 500 --percentile 95
    """
    from hgpu.bench.run import search as look
    from hgpu.bench.search import SearchOptions
    from hgpu.commands.benching import setting_of, slo_of, subject_of
    from hgpu.report.load import finish_load
    from hgpu.report.progress import progress_of

    objectives = (slo_ttft_ms, slo_tpot_ms, slo_e2e_ms, percentile)
    options = SearchOptions(
        slo_of(*objectives), arrivals, start, max_rate, precision, duration, max_duration, seed, burstiness
    )
    subject = subject_of(url, model, api, timeout, lengths, objectives, (max_error_rate, max_lag_ms))
    with progress_of("bench search") as progress:
        artifact = look(subject, options, setting_of(results, workers, selftest, None, label or []), progress)
    finish_load(artifact, json)
