"""The generator against the bundled mock server: what one core can send, and what it adds to a TTFT.

- Requests a second and core: streamed requests of 4 tokens over the CPU seconds (not the wall time) that
  the client took for them. The server has its first token after 5 ms and another every 5 ms, so that each
  is read for itself; 64 requests are in flight.
- Added TTFT: what is reported for a server that answers at once, at 200 requests/s. In it are the loopback
  interface and the server's own work, so that it bounds what the generator adds from above.
"""

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from hgpu.artifacts.digest import digest_of
from hgpu.artifacts.memo import Memo
from hgpu.artifacts.payloads.load import Selftest
from hgpu.artifacts.producer import producer
from hgpu.bench.arrivals import CLOSED, Load, schedule
from hgpu.bench.mock_process import apart, mock_server
from hgpu.bench.outcomes import Outcomes
from hgpu.bench.play import Job, play
from hgpu.bench.prompts import Wording
from hgpu.bench.target import Target
from hgpu.core.errors import InvalidMeasurement

LENGTHS = "fixed:16x4"
_IN_FLIGHT = 64
_ADDED_RPS = 200.0
_STAGGERED = ("--first-ms", "5", "--gap-ms", "5")


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a load, and the CPU seconds that this process took for it."""

    outcomes: Outcomes
    cpu_s: float


def selftest(seconds: float = 2.0) -> Selftest:
    """Measure this machine; each of the two parts takes that many seconds."""
    busy = Load(CLOSED, seconds, 0, concurrency=_IN_FLIGHT)
    steady = Load("constant", seconds, 0, rate_rps=_ADDED_RPS)
    with apart() as others:
        with mock_server(*_STAGGERED, cores=others) as url:
            closed = played(url, busy)
        with mock_server(cores=others) as url:
            added = played(url, steady).outcomes
    p50, p99 = (float(q) for q in np.quantile(added.ttft_s[added.good], [0.5, 0.99]))
    return Selftest(
        requests_per_s_and_core=closed.outcomes.requests / closed.cpu_s,
        added_ttft_p50_s=p50,
        added_ttft_p99_s=p99,
        machine=machine(),
    )


def known_selftest(results: Path) -> Selftest:
    """Return the measurement of this machine and this hgpu, made now where there is none under `results`."""
    memo = Memo(results / "memo" / "selftest")
    key = digest_of([machine(), producer().version, producer().git_sha, _event_loop()])
    known = memo.get(key)
    if known is not None:
        return Selftest.model_validate(known)
    measured = selftest()
    memo.put(key, measured.model_dump(mode="json"))
    return measured


def played(url: str, load: Load) -> Played:
    """Send a load of 4-token requests to a mock server. Raises InvalidMeasurement where one fails."""
    job = Job(Target(url, "mock"), Wording(1000, 9999), schedule(load, LENGTHS), (load.seed,))
    before_s = time.process_time()
    outcomes = play(job, time.monotonic())
    cpu_s = time.process_time() - before_s
    if not outcomes.good.all():
        first = next(error for error in outcomes.error if error)
        raise InvalidMeasurement("the selftest's own server failed", first, "run `hgpu bench selftest` again")
    return Played(outcomes, cpu_s)


def machine() -> str:
    """Return what this machine is: its processor, cores, Python and event loop."""
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} cores, Python {platform.python_version()}, {_event_loop()}"


def _event_loop() -> str:
    try:
        return f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        return "asyncio"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
