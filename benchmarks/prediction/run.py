"""Predicted against measured: a step model profiled over HTTP, a simulation on it, and real vLLM.

    make vllm && .venv-vllm/bin/python benchmarks/prediction/run.py

Starts one vLLM server on one core with a small random model, profiles it by its URL, then sends
loads that the profile hasn't seen and simulates the same arrivals and lengths. The load client runs
on the other cores. Every load is sent twice: how far the two agree is what a prediction could reach.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from hgpu.bench.load import run_load
from hgpu.bench.outcomes import Outcomes
from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.gpu import DType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.step import LatencyModel
from hgpu.latency.fit import fit
from hgpu.profilers.endpoint import EndpointJob, profile_endpoint
from hgpu.profilers.vllm_args import SERVER_MODULE, command_line, engine_environment
from hgpu.runtime.completion import served_model
from hgpu.runtime.health import Server, wait_healthy
from hgpu.runtime.ports import free_ports, local_url
from hgpu.runtime.tiny_model import VOCABULARY, make_tiny_model
from hgpu.simulator.arrivals import ClosedLoop, FixedCosts
from hgpu.simulator.engine import simulate
from hgpu.workloads.lengths import find_lengths
from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Trace

POINT = OperatingPoint("cpu-1core", dtype=DType.FP32, engine=EngineOptions(512, 16, 2048, enforce_eager=True))
MIXES = {"short prompts": "uniform:16-128x16-64", "long prompts": "uniform:256-1024x8-48"}
LOADS = (0.3, 0.55, 0.8)
QUANTILES = (0.5, 0.9)


@contextmanager
def server(folder: Path, core: int) -> Iterator[str]:
    """One real vLLM server, bound to one core."""
    gpu = resolve_gpu(POINT.gpu)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", SERVER_MODULE, *command_line(str(folder), POINT, gpu, "dummy")]
    environment = os.environ | engine_environment(str(folder), POINT, gpu, [core], [])
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=stream,
            stderr=stream,
        )
        try:
            wait_healthy([Server("vllm", local_url(port), log, lambda: process.poll() is None)], 600)
            yield local_url(port)
        finally:
            process.terminate()
            process.wait(60)


def capacity_rps(latency: LatencyModel, lengths: str) -> float:
    """Requests per second with every slot always busy."""
    inputs, outputs = find_lengths(lengths).sample(400, seed=9)
    run = simulate(latency, POINT.engine, ClosedLoop(POINT.engine.max_num_seqs, inputs, outputs))
    return 400 / run.makespan_s


def measured(outcomes: Outcomes) -> dict[str, np.ndarray]:
    errors = [error for error in outcomes.error if error]
    if errors:
        raise SystemExit(f"{len(errors)} requests failed; the first: {errors[0]}")
    return {"TTFT": outcomes.ttft_s, "TPOT": outcomes.tpot_s[outcomes.output_tokens > 1]}


def predicted(latency: LatencyModel, trace: Trace) -> dict[str, np.ndarray]:
    run = simulate(latency, POINT.engine, trace, FixedCosts(request_s=latency.request_s))
    return {"TTFT": run.ttft_s, "TPOT": run.tpot_s[np.isfinite(run.tpot_s)]}


def figures(values_s: np.ndarray) -> list[float]:
    return [float(values_s.mean()), *(float(np.quantile(values_s, q)) for q in QUANTILES)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    with tempfile.TemporaryDirectory() as name:
        folder = make_tiny_model(Path(name) / "model")
        model = load_model(str(folder), DType.FP32)
        with server(folder, cores[0]) as url:
            report(url, folder, model, options.seconds)


def report(url: str, folder: Path, model: ModelSpec, seconds: float) -> None:
    result = profile_endpoint(EndpointJob(url, model, POINT), folder, lambda *_: None)
    fitted = fit(result.samples, model, result.kv_capacity_tokens, result.provenance)
    latency = replace(fitted.latency, request_s=result.assumptions["request_s"])
    print(f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, {result.engine};")
    print(f"profiled in {result.seconds:.0f} s; step error {latency.median_error:.1%} median,")
    cost_ms = latency.request_s * 1e3
    print(f"{latency.p90_error:.1%} p90; noise {latency.noise:.1%}; request cost {cost_ms:.1f} ms\n")
    columns = (
        "lengths",
        "load",
        "sent",
        "what",
        "mean",
        "p50",
        "p90",
        "predicted",
        "p50",
        "p90",
        "off",
        "again",
    )
    print(f"| {' | '.join(columns)} |")
    print("|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    off: list[float] = []
    again: list[float] = []
    for title, lengths in MIXES.items():
        top = capacity_rps(latency, lengths)
        for number, load in enumerate(LOADS):
            trace = poisson_trace(lengths, load * top, duration_s=seconds, seed=100 + number)
            row = f"{title} | {load:.0%} ({load * top:.2f}/s) | {trace.requests}"
            errors, differences = compare(url, latency, trace, row)
            off += errors
            again += differences
    print(
        f"\nmilliseconds. Over all {len(off)} figures: {spread(off)} off; sent again, {spread(again)} apart."
    )


def compare(url: str, latency: LatencyModel, trace: Trace, row: str) -> tuple[list[float], list[float]]:
    """Send a trace twice, simulate it, print a line for TTFT and one for TPOT, and return the errors."""
    name, seed = served_model(url), time.time_ns() % 2**32
    runs = [measured(run_load(url, name, trace, VOCABULARY, seed + k)) for k in (0, 1)]
    simulated = predicted(latency, trace)
    off: list[float] = []
    again: list[float] = []
    for what in ("TTFT", "TPOT"):
        first, second = (figures(run[what]) for run in runs)
        said = figures(simulated[what])
        both = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
        off += [abs(p - m) / m for p, m in zip(said, both, strict=True)]
        differences = [abs(a - b) / b for a, b in zip(first, second, strict=True)]
        again += differences
        cells = [f"{1e3 * value:.0f}" for value in (*both, *said)]
        cells += [f"{said[0] / both[0] - 1:+.0%}", f"{max(differences):.0%}"]
        print(f"| {row} | {what} | {' | '.join(cells)} |", flush=True)
    return off, again


def spread(errors: list[float]) -> str:
    return f"{np.median(errors):.1%} (median) and {np.quantile(errors, 0.9):.1%} (p90)"


if __name__ == "__main__":
    main()
