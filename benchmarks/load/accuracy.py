"""Is the TTFT that the generator reports the one that the server had? At half of the selftest rate.

    python benchmarks/load/accuracy.py [--rate RPS] [--seconds 4]

Generator and mock server read the same clock of the machine. The true TTFT of a request is from the moment at
which the schedule wants it sent to the moment at which the server wrote its first token, which the server
notes beside the prompt; how long the server was behind with reading is in it. Reported is what the
generator says. A row holds where they are within 1 ms + 2 %. How late the generator
sent is in both, as it is in every TTFT of hgpu, and stands beside them as lag.
"""

import argparse
import json
import os
import time
import urllib.request

import numpy as np

from hgpu.bench.arrivals import Load, schedule
from hgpu.bench.mock_answer import KEY_BYTES
from hgpu.bench.mock_process import apart, mock_server
from hgpu.bench.play import Job, play
from hgpu.bench.prompts import Prompts, Wording
from hgpu.bench.selftest import LENGTHS, selftest
from hgpu.bench.target import Target

CASES = {"0": ("0", "0"), "20": ("20", "0"), "200": ("200", "0"), "20 to 60": ("20", "40")}
QUANTILES = (0.5, 0.9, 0.99)


def figures(values_s: np.ndarray) -> list[float]:
    return [float(values_s.mean()), *(float(np.quantile(values_s, q)) for q in QUANTILES)]


def row(name: str, first_ms: str, jitter_ms: str, rate_rps: float, seconds: float) -> str:
    options = ("--first-ms", first_ms, "--jitter-ms", jitter_ms)
    plan = schedule(Load("constant", seconds, 0, rate_rps), LENGTHS)
    with apart() as others, mock_server(*options, cores=others) as url:
        job = Job(Target(url, "mock"), Wording(1000, 9999), plan, (0,))
        before_s, started_s = time.process_time(), time.monotonic() + 0.1
        outcomes = play(job, started_s)
        cpu = (time.process_time() - before_s) / seconds
        with urllib.request.urlopen(f"{url}/mock/written", timeout=10) as response:
            written_s = dict(json.load(response))
    good, prompts = outcomes.good, Prompts(job.wording, int(plan.input_tokens.max()), job.seeds)
    keys = [prompts.write(number, 16)[:KEY_BYTES].decode() for number in outcomes.number[good]]
    first_s = np.array([written_s[key] for key in keys]) - started_s
    true, reported = figures(first_s - outcomes.intended_s[good]), figures(outcomes.ttft_s[good])
    off = [r - t for r, t in zip(reported, true, strict=True)]
    holds = [abs(o) <= 1e-3 + 0.02 * t for o, t in zip(off, true, strict=True)]
    cells = [f"{r * 1e3:.2f} ({o * 1e3:+.2f})" for r, o in zip(reported, off, strict=True)]
    lag_ms = np.quantile(outcomes.lag_s, [0.5, 0.99]) * 1e3
    cells += [f"{lag_ms[0]:.2f}", f"{lag_ms[1]:.2f}", f"{cpu:.0%}"]
    cells += ["yes" if all(held) else "no" for held in (holds[:2], holds)]
    return f"| {name} | {outcomes.requests} | {int((~good).sum())} | {' | '.join(cells)} |"


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
    print(f"load average {os.getloadavg()[0]:.1f} before the rows;")
    print(f"at {rate_rps:,.0f} requests/s; ms reported (less the true)\n")
    columns = ("delay ms", "requests", "errors", "mean", "p50", "p90", "p99", "lag p50", "lag p99", "core")
    print(f"| {' | '.join(columns)} | mean, p50 hold | all hold |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|---|")
    for name, (first_ms, jitter_ms) in CASES.items():
        print(row(name, first_ms, jitter_ms, rate_rps, options.seconds), flush=True)


if __name__ == "__main__":
    main()
