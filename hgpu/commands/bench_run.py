"""`hgpu bench run`: points of load on a server."""

from pathlib import Path
from typing import Annotated

import typer

from hgpu.commands.options import RESULTS, Json, Results

Url = Annotated[str, typer.Argument(help="Where the server answers; see `hgpu status`.")]
Lengths = Annotated[str, typer.Option(help="A named distribution, fixed:512x128 or uniform:100-500x50-200.")]
Arrivals = Annotated[str, typer.Option(help="constant, poisson, gamma or ramp.")]
Ttft = Annotated[float | None, typer.Option("--slo-ttft-ms", min=0.0, help="Objective on TTFT.")]
Tpot = Annotated[float | None, typer.Option("--slo-tpot-ms", min=0.0, help="Objective on TPOT.")]
E2e = Annotated[float | None, typer.Option("--slo-e2e-ms", min=0.0, help="Objective on end-to-end latency.")]
Percentile = Annotated[float, typer.Option(min=50.0, max=99.99, help="Percent of the requests that keep it.")]
Model = Annotated[str | None, typer.Option(help="The first that the server lists, if not given.")]
Api = Annotated[str, typer.Option(help="completions (token ids) or chat (text).")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of arrivals and lengths.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds for a request, from its send to its end.")]
ErrorRate = Annotated[float, typer.Option(min=0.0, max=1.0, help="Part that may fail in a valid point.")]
Lag = Annotated[
    float | None, typer.Option(min=0.0, help="Lateness of the generator, at p99, in a valid point.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; as many as the rate needs by default.")]
Burstiness = Annotated[float, typer.Option(min=0.01, help="Shape of gamma gaps: below 1 is bursty.")]
Label = Annotated[
    list[str] | None,
    typer.Option(help="What the server runs on, as gpu=L4; for comparisons. May be repeated."),
]
SelftestFirst = Annotated[
    bool, typer.Option(help="Measure the generator first, once for a machine and version.")
]


def run(
    url: Url,
    lengths: Lengths = "chat",
    rate: Annotated[str | None, typer.Option(help="Requests/s, one or more: 2,4.")] = None,
    arrivals: Arrivals = "poisson",
    concurrency: Annotated[str | None, typer.Option(help="Closed loops of so many in flight: 8,16.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Replay a trace, stretched to --rate if given.")] = None,
    trace_format: Annotated[str | None, typer.Option(help="azure, burstgpt, mooncake or sharegpt.")] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds a point; 30, or the whole trace.")
    ] = None,
    slo_ttft_ms: Ttft = None,
    slo_tpot_ms: Tpot = None,
    slo_e2e_ms: E2e = None,
    percentile: Percentile = 99.0,
    runs: Annotated[int, typer.Option(min=1, help="Times that each point is sent, with other seeds.")] = 1,
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
    """Send points of load and print TTFT, TPOT, throughput and goodput of each.

    A broken run resumes where it stopped. Exit code 4 where a point is invalid.

    Example: hgpu bench run http://127.0.0.1:8000 --lengths chat --rate 2,4 --slo-tpot-ms 40
    """
    from hgpu.bench.run import run as send
    from hgpu.commands.benching import Points, loads_of, numbers, setting_of, subject_of
    from hgpu.report.load import finish_load
    from hgpu.report.progress import progress_of

    objectives = (slo_ttft_ms, slo_tpot_ms, slo_e2e_ms, percentile)
    limits = (max_error_rate, max_lag_ms)
    subject = subject_of(url, model, api, timeout, lengths, objectives, limits, (trace, trace_format))
    points = Points(arrivals, numbers(rate, "--rate"), numbers(concurrency, "--concurrency"), trace)
    loads = loads_of(points, duration, runs, seed, burstiness)
    setting = setting_of(results, workers, selftest, trace, label or [])
    with progress_of("bench run") as progress:
        artifact = send(subject, loads, setting, progress)
    finish_load(artifact, json)
