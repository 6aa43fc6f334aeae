"""What `hgpu router` adds to a request, and how many it carries a core.

    python benchmarks/router/overhead.py [--rounds 6] [--seconds 5]

Mock servers are the pools of the demo's plan at 64 requests/s. The router has a core of its own; client
and mocks share the other cores. In each round the same load is sent to a mock directly and through the
router, the order swapped from round to round. Quantiles are taken within a round, and differences between
the two of a round; quoted are their median, and the least and the most.

- Added latency: 500 streamed requests/s (Poisson) of 4 tokens, the first after 20 ms, then one every 5 ms.
- Carried: a closed loop with 64 in flight of 4 tokens, one every 5 ms, each a packet of its own. Requests
  over the CPU seconds (user and system) of the router's process, and over wall time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from hgpu.artifacts.resolve import resolve
from hgpu.bench.arrivals import CLOSED, Load
from hgpu.bench.mock_process import mock_server
from hgpu.bench.selftest import Played, machine, played
from hgpu.runtime.health import Server, wait_healthy
from hgpu.runtime.ports import free_ports, local_url

RATE_RPS, IN_FLIGHT = 500.0, 64
SLOW, QUICK = ("--first-ms", "20", "--gap-ms", "5"), ("--first-ms", "5", "--gap-ms", "5")
PLANNED_RPS = 64
Row = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Routed:
    """A mock server, and a router before it and its like."""

    direct_url: str
    router_url: str
    router: psutil.Process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit(
            "error: the router needs a core of its own\nwhy: this machine has one\nfix: use one with two or more"
        )
    os.sched_setaffinity(0, cores[1:])
    with tempfile.TemporaryDirectory() as folder:
        plan = made_plan(Path(folder))
        with routed(plan, SLOW, cores[:1]) as pair:
            added = [added_ms(pair, options.seconds, number) for number in range(options.rounds)]
        with routed(plan, QUICK, cores[:1]) as pair:
            carried = [carried_rps(pair, options.seconds, number) for number in range(options.rounds)]
    print(f"{machine()}; {options.rounds} rounds of {options.seconds:g} s")
    print("| | median | least to most |\n|---|---:|---:|")
    show(
        ("TTFT p50, added ms", "TTFT p99, added ms", "end-to-end p50, added ms", "end-to-end p99, added ms"),
        added,
    )
    show(("requests a core and second", "requests/s, routed", "requests/s, direct"), carried)


def show(names: Sequence[str], rows: Sequence[Row]) -> None:
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        digits = 2 if max(column) < 100 else 0
        middle, least, most = (
            f"{v:,.{digits}f}" for v in (statistics.median(column), min(column), max(column))
        )
        print(f"| {name} | {middle} | {least} to {most} |")


def made_plan(folder: Path) -> Path:
    """Plan the demo's service; return the artifact's folder."""
    spec, results = folder / "spec.yaml", folder / "results"
    hgpu("init", "serve", "--out", str(spec))
    rate = f"workload.rate_rps={PLANNED_RPS}"
    hgpu("plan", str(spec), "--estimate", "--sweep", rate, "--results", str(results))
    (made,) = (results / "plan").iterdir()
    return made


def hgpu(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "hgpu", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


@contextmanager
def routed(plan: Path, behaviour: Sequence[str], cores: Sequence[int]) -> Iterator[Routed]:
    """Start a mock server for each pool of the plan and a router, bound to `cores`, before them."""
    pools = [row.pool for row in resolve(plan.parent.parent, str(plan), "plan").payload.allocation]
    with ExitStack() as stack:
        urls = [stack.enter_context(mock_server(*behaviour)) for _ in pools]
        (port,) = free_ports(1)
        words = [sys.executable, "-m", "hgpu", "router", str(plan), "--port", str(port)]
        words += [word for pool, url in zip(pools, urls, strict=True) for word in ("--pool", f"{pool}={url}")]
        log = plan.parent / "router.log"
        with log.open("w") as stream:
            process = subprocess.Popen(words, stdout=stream, stderr=stream)
        try:
            os.sched_setaffinity(process.pid, cores)
            url = local_url(port)
            wait_healthy([Server("router", url, log, lambda: process.poll() is None)], 30)
            yield Routed(urls[0], url, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait()


def both(pair: Routed, number: int, send: Callable[[str], Played]) -> tuple[Played, Played]:
    """Send to the mock and through the router, in an order that changes from round to round."""
    if number % 2:
        through = send(pair.router_url)
        return send(pair.direct_url), through
    return send(pair.direct_url), send(pair.router_url)


def added_ms(pair: Routed, seconds: float, number: int) -> Row:
    """Return what the router adds to TTFT and end-to-end latency at p50 and p99, in ms."""
    load = Load("poisson", seconds, seed=number, rate_rps=RATE_RPS)
    direct, through = both(pair, number, lambda url: played(url, load))
    quantiles = [
        np.quantile(column, [0.5, 0.99]) * 1e3
        for made in (direct.outcomes, through.outcomes)
        for column in (made.ttft_s, made.e2e_s)
    ]
    return tuple(float(v) for v in np.concatenate([quantiles[2] - quantiles[0], quantiles[3] - quantiles[1]]))


def carried_rps(pair: Routed, seconds: float, number: int) -> Row:
    """Return requests over the router's CPU seconds, over wall time, and over wall time without it."""
    load = Load(CLOSED, seconds, seed=number, concurrency=IN_FLIGHT)
    cpu_s: list[float] = []

    def send(url: str) -> Played:
        before = sum(pair.router.cpu_times()[:2])
        made = played(url, load)
        cpu_s.append(sum(pair.router.cpu_times()[:2]) - before)
        return made

    direct, through = both(pair, number, send)
    requests = through.outcomes.requests
    spent_s = cpu_s[0] if number % 2 else cpu_s[1]
    took_s = float(through.outcomes.end_s.max())
    return (
        requests / spent_s,
        requests / took_s,
        direct.outcomes.requests / float(direct.outcomes.end_s.max()),
    )


if __name__ == "__main__":
    main()
