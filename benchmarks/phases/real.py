"""The phase scheduler in real vLLM, a part at a time, against vLLM's own: one run, paired, several seeds.

    make vllm && .venv-vllm/bin/python benchmarks/phases/real.py

Starts one vLLM server an arm, all bound to one core, and loads one of them at a time from the other cores,
so that the arms answer the same requests minutes apart. The step model that the budget needs is profiled
over HTTP and fitted first. README.md says what the rows mean.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hgpu.bench.load import run_load
from hgpu.bench.outcomes import Outcomes
from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.core.phases import PhaseOptions, Phases
from hgpu.core.step import LatencyModel, StepModel
from hgpu.latency.fit import fit
from hgpu.latency.phases import overtaken_s
from hgpu.profilers.endpoint import EndpointJob, profile_endpoint
from hgpu.profilers.vllm_args import SERVER_MODULE, command_line, engine_environment
from hgpu.runtime.completion import served_model
from hgpu.runtime.health import Server, wait_healthy
from hgpu.runtime.ports import free_ports, local_url
from hgpu.runtime.tiny_model import VOCABULARY, make_tiny_model
from hgpu.runtime.vllm.options import scheduler_args
from hgpu.simulator.arrivals import ClosedLoop
from hgpu.simulator.engine import simulate
from hgpu.workloads.lengths import find_lengths
from hgpu.workloads.replay import poisson_trace
from hgpu.workloads.trace import Trace, ordered_trace

POINT = OperatingPoint("cpu-1core", dtype=DType.FP32, engine=EngineOptions(512, 16, 2048, enforce_eager=True))
SHORT, LONG, LONG_SHARE = "uniform:16-64x8-48", "uniform:512-1024x8-48", 0.2
LONG_TOKENS = 512
STOCK = "vLLM's own (first come, first served)"
NO_AGEING = 1e-6  # tokens/s: in an hour nobody gains a token


@dataclass(frozen=True)
class Arm:
    """A server, and what its scheduler was told."""

    title: str
    url: str
    options: PhaseOptions | None


def mixed_trace(rate_rps: float, seconds: float, seed: int) -> Trace:
    """Short and long prompts with Poisson arrivals."""
    arrivals = poisson_trace(SHORT, rate_rps, duration_s=seconds, seed=seed)
    inputs, outputs = mixed_lengths(arrivals.requests, seed)
    source = f"{1 - LONG_SHARE:.0%} {SHORT}, {LONG_SHARE:.0%} {LONG}"
    return ordered_trace("short and long", arrivals.arrivals_s, inputs, outputs, source=source)


def mixed_lengths(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n input and output lengths."""
    long = np.random.default_rng([seed, 2]).random(n) < LONG_SHARE
    short_lengths, long_lengths = (find_lengths(name).sample(n, seed) for name in (SHORT, LONG))
    inputs, outputs = (np.where(long, b, a) for a, b in zip(short_lengths, long_lengths, strict=True))
    return inputs, outputs


@contextmanager
def server(folder: Path, core: int, name: str, arguments: list[str]) -> Iterator[str]:
    """One real vLLM server, bound to one core."""
    gpu = resolve_gpu(POINT.gpu)
    (port,) = free_ports(1)
    command = [
        sys.executable,
        "-m",
        SERVER_MODULE,
        *command_line(str(folder), POINT, gpu, "dummy"),
        *arguments,
    ]
    log = folder / f"{name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command, "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | engine_environment(str(folder), POINT, gpu, [core], []),
            stdout=stream,
            stderr=stream,
        )
        try:
            wait_healthy([Server("vllm", local_url(port), log, lambda: process.poll() is None)], 600)
            yield local_url(port)
        finally:
            process.terminate()
            process.wait(60)


def fitted(url: str, folder: Path) -> LatencyModel:
    """Profile a server by its URL and fit its step model."""
    model = load_model(str(folder), DType.FP32)
    result = profile_endpoint(EndpointJob(url, model, POINT), folder, lambda *_: None)
    latency = fit(result.samples, model, result.kv_capacity_tokens, result.provenance).latency
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, {result.engine}; ",
        end="",
    )
    print(f"profiled in {result.seconds:.0f} s, step error {latency.median_error:.1%} (median)")
    return latency


def capacity_rps(latency: LatencyModel) -> float:
    """Requests per second with every seat always busy."""
    run = simulate(latency, POINT.engine, ClosedLoop(POINT.engine.max_num_seqs, *mixed_lengths(400, 9)))
    return 400 / run.makespan_s


def sent(arm: Arm, trace: Trace, seed: int) -> Outcomes:
    """Send a trace to an arm's server; every request must be answered."""
    outcomes = run_load(arm.url, served_model(arm.url), trace, VOCABULARY, seed)
    if errors := [error for error in outcomes.error if error]:
        raise SystemExit(f"{arm.title}: {len(errors)} requests failed; the first: {errors[0]}")
    return outcomes


def tokens_per_s(outcomes: Outcomes) -> float:
    """Output tokens per second until the last one."""
    return float(outcomes.output_tokens.sum() / outcomes.end_s.max())


def overtakers(outcomes: Outcomes, ageing_tok_per_s: float) -> int:
    """Count pairs in which a request that came later than the bound had its first token before the other.

    A prompt's tokens by the server's count may differ from those it was asked for by a few: the server's are
    taken. Two prompts of one step have their first tokens at the same time, within what the client can tell.
    """
    after_s = outcomes.intended_s[None, :] - outcomes.intended_s[:, None]
    before_s = outcomes.first_s[:, None] - outcomes.first_s[None, :]
    bound_s = overtaken_s(1, ageing_tok_per_s) * outcomes.input_tokens[:, None]
    return int(((after_s > bound_s) & (before_s > 0.005)).sum())


def tails(values: np.ndarray) -> list[float]:
    return [float(values.mean()), float(np.quantile(values, 0.95)), float(np.quantile(values, 0.99))]


def figures(outcomes: Outcomes) -> dict[str, float]:
    """Return what a row of the table shows, in milliseconds and tokens/s."""
    long = outcomes.input_tokens >= LONG_TOKENS
    ttft_ms = 1e3 * outcomes.ttft_s
    tpot_ms = 1e3 * outcomes.tpot_s[outcomes.output_tokens > 1]
    row = {"tok/s": tokens_per_s(outcomes)}
    row |= dict(zip(("TTFT mean", "TTFT p95", "TTFT p99"), tails(ttft_ms), strict=True))
    row |= {"short, mean": float(ttft_ms[~long].mean()), "long, mean": float(ttft_ms[long].mean())}
    row |= {"longest": float(ttft_ms.max())}
    row |= dict(zip(("TPOT mean", "TPOT p95", "TPOT p99"), tails(tpot_ms), strict=True))
    return row


def compared(title: str, arms: list[Arm], rate_rps: float, seconds: float, seeds: range) -> None:
    """Send each seed's trace to each arm, the arms' order turning, and print the medians beside stock's."""
    runs: dict[str, list[Outcomes]] = {arm.title: [] for arm in arms}
    for seed in seeds:
        trace = mixed_trace(rate_rps, seconds, seed)
        turn = seed % len(arms)
        for arm in arms[turn:] + arms[:turn]:
            runs[arm.title].append(sent(arm, trace, seed))
            print(f"  seed {seed}: {arm.title}: {figures(runs[arm.title][-1])}", file=sys.stderr, flush=True)
    print(f"\n{title}: {rate_rps:.2f} requests/s for {seconds:.0f} s, {len(seeds)} seeds\n")
    table(arms, runs)


def table(arms: list[Arm], runs: dict[str, list[Outcomes]]) -> None:
    """Print a line an arm: medians over the seeds, and of the ratios to the same seed's stock run."""
    rows = {title: [figures(run) for run in of] for title, of in runs.items()}
    names = list(rows[STOCK][0])
    print(f"| arm | {' | '.join(names)} | overtaken past the bound |")
    print(f"|---|{'---:|' * (len(names) + 1)}")
    for arm in arms:
        cells = []
        for name in names:
            mine = [row[name] for row in rows[arm.title]]
            ratios = [a / b[name] for a, b in zip(mine, rows[STOCK], strict=True)]
            cells.append(
                f"{np.median(mine):.0f}" + ("" if arm.title == STOCK else f" (x{np.median(ratios):.3f})")
            )
        ageing = arm.options.ageing_tok_per_s if arm.options else None
        late = "" if ageing is None else str(sum(overtakers(run, ageing) for run in runs[arm.title]))
        print(f"| {arm.title} | {' | '.join(cells)} | {late} |", flush=True)


def main() -> None:
    """Run the ablation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=40.0, help="of arrivals past the knee, a run")
    parser.add_argument("--light-seconds", type=float, default=15.0, help="of arrivals at light load, a run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--light-seeds", type=int, default=6)
    parser.add_argument("--overload", type=float, default=1.2, help="of the simulated capacity")
    parser.add_argument("--light", type=float, default=0.3, help="of the simulated capacity")
    parser.add_argument("--ageing", type=float, default=50.0, help="γ in tokens/s")
    parser.add_argument(
        "--step", type=Path, help="a step model (JSON), instead of profiling; kept there if new"
    )
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = make_tiny_model(Path(name) / "model", hidden_size=512, layers=8)
        stock = Arm(STOCK, stack.enter_context(server(folder, cores[0], "stock", [])), None)
        latency = step_model(options.step, stock.url, folder)
        top = capacity_rps(latency)
        trial = sent(stock, mixed_trace(options.overload * top, options.seconds, 99), 99)
        tpot_s = float(np.quantile(trial.tpot_s[trial.output_tokens > 1], 0.95))
        kept, half = (PhaseOptions(options.ageing, share * tpot_s) for share in (1.0, 0.5))
        told = {
            "the plugin, nothing on": PhaseOptions(),
            "shortest first, no ageing": PhaseOptions(NO_AGEING),
            "shortest first": PhaseOptions(options.ageing),
            f"shortest first, TPOT {1e3 * tpot_s:.0f} ms kept": kept,
            f"shortest first, TPOT {500 * tpot_s:.0f} ms kept": half,
        }
        arms = [stock]
        for number, (title, phase_options) in enumerate(told.items()):
            arguments = scheduler_args(Phases(phase_options, latency.step), asynchronous=False)
            url = stack.enter_context(server(folder, cores[0], f"arm{number}", arguments))
            arms.append(Arm(title, url, phase_options))
        print(
            f"γ {options.ageing:g} tokens/s; simulated capacity {top:.1f} requests/s; "
            f"stock's p95 TPOT in a trial {1e3 * tpot_s:.0f} ms"
        )
        for arm in arms:
            sent(arm, mixed_trace(0.5 * top, 5, 98), 98)  # warm
        compared("Past the knee", arms, options.overload * top, options.seconds, range(options.seeds))
        ageing = [arm for arm in arms if arm.options is None or arm.options.ageing_tok_per_s != NO_AGEING]
        compared("Light load", ageing, options.light * top, options.light_seconds, range(options.light_seeds))


def step_model(file: Path | None, url: str, folder: Path) -> LatencyModel:
    """Return the latency model in a file, or the one of the server at a URL."""
    if file is not None and file.exists():
        rows = json.loads(file.read_text())
        return LatencyModel(**(rows | {"step": StepModel(**rows["step"])}))
    latency = fitted(url, folder)
    if file is not None:
        file.write_text(json.dumps(asdict(latency)))
    return latency


if __name__ == "__main__":
    main()
