"""Is the TTFT that the generator reports the one that the server had? At half of the selftest rate.

    python benchmarks/load/accuracy.py [--rate RPS] [--seconds 4]

For each known delay the mock server keeps its own clock: from having read a request to having written its
first token. Reported is TTFT from the intended send. A row holds where they are within 1 ms + 2 %.
"""

import argparse
import json
import time
import urllib.request

import numpy as np

from hgpu.bench.arrivals import Load, schedule
from hgpu.bench.mock_process import apart, mock_server
from hgpu.bench.play import Job, play
from hgpu.bench.prompts import Wording
from hgpu.bench.selftest import LENGTHS, selftest
from hgpu.bench.target import Target

CASES = {"0": ("0", "0"), "20": ("20", "0"), "200": ("200", "0"), "20 to 60": ("20", "40")}
QUANTILES = (0.5, 0.9, 0.99)


def figures(values_s: np.ndarray) -> list[float]:
    return [float(values_s.mean()), *(float(np.quantile(values_s, q)) for q in QUANTILES)]


def row(name: str, first_ms: str, jitter_ms: str, rate_rps: float, seconds: float) -> str:
    with (
        apart() as others,
        mock_server("--first-ms", first_ms, "--jitter-ms", jitter_ms, cores=others) as url,
    ):
        plan = schedule(Load("constant", seconds, 0, rate_rps), LENGTHS)
        before_s = time.process_time()
        outcomes = play(Job(Target(url, "mock"), Wording(1000, 9999), plan, (0,)), time.monotonic() + 0.1)
        cpu = (time.process_time() - before_s) / seconds
        with urllib.request.urlopen(f"{url}/mock/delays", timeout=10) as response:
            server = figures(np.array(json.load(response)["first_s"]))
    reported = figures(outcomes.ttft_s[outcomes.good])
    bad = int((~outcomes.good).sum())
    off = [r - s for r, s in zip(reported, server, strict=True)]
    holds = [abs(o) <= 1e-3 + 0.02 * s for o, s in zip(off, server, strict=True)]
    cells = [f"{r * 1e3:.2f} ({o * 1e3:+.2f})" for r, o in zip(reported, off, strict=True)]
    cells += [f"{np.quantile(outcomes.lag_s, 0.99) * 1e3:.2f}", f"{cpu:.0%}"]
    cells += ["yes" if all(held) else "no" for held in (holds[:2], holds)]
    return f"| {name} | {outcomes.requests} | {bad} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, help="requests/s; half of the selftest's by default")
    parser.add_argument("--seconds", type=float, default=4.0, help="a row")
    options = parser.parse_args()
    tested = selftest()
    rate_rps = options.rate or tested.requests_per_s_and_core / 2
    told = f"{tested.requests_per_s_and_core:,.0f} requests/s and core"
    print(f"{tested.machine}; {time.strftime('%Y-%m-%d')}; selftest {told}")
    print(f"at {rate_rps:,.0f} requests/s; ms reported (less the server's own)\n")
    columns = ("delay ms", "requests", "errors", "mean", "p50", "p90", "p99", "lag p99", "core")
    print(f"| {' | '.join(columns)} | mean, p50 hold | all hold |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---|")
    for name, (first_ms, jitter_ms) in CASES.items():
        print(row(name, first_ms, jitter_ms, rate_rps, options.seconds), flush=True)


if __name__ == "__main__":
    main()
