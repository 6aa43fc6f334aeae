"""What `bench run` and `bench search` make of their options."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgpu.bench.arrivals import CLOSED, OPEN, TRACE, Load
from hgpu.bench.draft import Setting
from hgpu.bench.labels import labels_of
from hgpu.bench.point import Rules
from hgpu.bench.session import Subject
from hgpu.bench.target import Api, Target
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.slo import Objective, Slo
from hgpu.report.output import note
from hgpu.runtime.completion import served_model
from hgpu.workloads.lengths import find_lengths
from hgpu.workloads.readers import read_trace

DURATION_S = 30.0
Objectives = tuple[float | None, float | None, float | None, float]


def subject_of(
    url: str,
    model: str | None,
    api: str,
    timeout_s: float,
    lengths: str,
    objectives: Objectives,
    limits: tuple[float, float | None],
    trace: tuple[Path | None, str | None] = (None, None),
) -> Subject:
    """Return what is sent; asks the server for its model where none is given."""
    if api not in list(Api):
        raise UnknownName("API", api, list(Api))
    find_lengths(lengths)
    base = url.rstrip("/").removesuffix("/v1")
    path, format = trace
    read = read_trace(path, format) if path else None
    target = Target(base, model or "", Api(api), timeout_s)
    if not model:
        target = Target(base, served_model(base), Api(api), timeout_s)
    slo, (error_rate, lag_ms) = slo_of(*objectives), limits
    lag_s = None if lag_ms is None else lag_ms / 1e3
    return Subject(target, lengths, Rules(None if slo == Slo() else slo, error_rate, lag_s), read)


def slo_of(ttft_ms: float | None, tpot_ms: float | None, e2e_ms: float | None, percentile: float) -> Slo:
    """Return objectives in seconds."""

    def objective(limit_ms: float | None) -> Objective | None:
        return None if limit_ms is None else Objective(limit_ms / 1e3, percentile)

    return Slo(objective(ttft_ms), objective(tpot_ms), objective(e2e_ms))


@dataclass(frozen=True, slots=True)
class Points:
    """What is to be sent: open arrivals at rates in requests/s, closed loops, or a trace."""

    arrivals: str
    rates: Sequence[float]
    concurrencies: Sequence[float]
    trace: Path | None

    def __post_init__(self) -> None:
        """Refuse what doesn't say what to send."""
        if self.arrivals not in OPEN:
            raise UnknownName("arrival process", self.arrivals, OPEN)
        if self.trace and self.concurrencies:
            raise InputError(
                "a trace has its own arrivals", "--trace and --concurrency are given", "drop one"
            )
        if not (self.rates or self.concurrencies or self.trace):
            raise InputError(
                "how much to send isn't said", "", "add --rate 2,4 or --concurrency 8,16 or --trace FILE"
            )
        if any(count != int(count) for count in self.concurrencies):
            raise InputError("bad --concurrency", "it has a number that isn't whole", "write 8,16")


def loads_of(points: Points, duration_s: float | None, runs: int, seed: int, burstiness: float) -> list[Load]:
    """Return the loads to send: all points, `runs` times, each time with another seed."""
    loads: list[Load] = []
    for number in range(seed, seed + runs):
        if points.trace:
            stretched: Sequence[float | None] = points.rates or [None]
            loads += [Load(TRACE, duration_s or 0.0, number, rate) for rate in stretched]
            continue
        lasts_s = duration_s or DURATION_S
        loads += [
            Load(points.arrivals, lasts_s, number, rate, burstiness=burstiness) for rate in points.rates
        ]
        loads += [Load(CLOSED, lasts_s, number, concurrency=int(count)) for count in points.concurrencies]
    return loads


def numbers(text: str | None, option: str) -> list[float]:
    """Return the positive numbers in a text such as `2,4`."""
    try:
        found = [float(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        found = [0.0]
    if not all(0 < number < 1e6 for number in found):
        raise InputError(f"bad {option} '{text}'", "it isn't a list of positive numbers", "write 2,4")
    return found


def setting_of(
    results: Path, workers: int | None, selftest: bool, trace: Path | None, labels: Sequence[str]
) -> Setting:
    """Return how the test is run; its prompts are new, so that the server can't know them."""
    salt = int.from_bytes(os.urandom(6))
    return Setting(results, salt, note, workers, selftest, trace, labels_of(labels))
