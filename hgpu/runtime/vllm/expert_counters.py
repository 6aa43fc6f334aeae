"""What an expert cache did, counted where it is done, and a file by which other processes can see it.

vLLM's `/metrics` is served by another process than the one that computes. `publish` writes the counters into
a small file that is mapped into memory, so that a step pays nothing for it; the collector in the serving
process reads it whenever it is asked. Both find it by an environment variable, which children inherit.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

FILE_VARIABLE = "HGPU_EXPERT_COUNTERS"


@dataclass(slots=True)
class ExpertCounters:
    """`hits`, `misses`: experts that a group of tokens needs and that had a slot, or were copied meanwhile.

    `prefetched` were copied ahead, `prefetch_hits` of them used. `predictions` are the experts of tokens for
    which something was predicted, `predicted` those that were among it. Steps waited `stall_s` for copies.
    """

    steps: int = 0
    groups: int = 0
    wide_groups: int = 0
    hits: int = 0
    misses: int = 0
    prefetched: int = 0
    prefetch_hits: int = 0
    predictions: int = 0
    predicted: int = 0
    copied_bytes: int = 0
    stall_s: float = 0.0
    resident_bytes: int = 0
    wide_bytes: int = 0
    host_bytes: int = 0


class CounterFile:
    """The file in which one engine's counters stand, as float64 in the order of their names."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)  # of an engine that this process had before
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        os.truncate(descriptor, 8 * len(NAMES))
        os.close(descriptor)
        self._path = path
        self._values: Any = np.memmap(path, np.float64, "r+")

    def publish(self, counters: ExpertCounters) -> None:
        """Let other processes see the counters as they are now."""
        self._values[:] = [getattr(counters, name) for name in NAMES]

    def close(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


class ExpertCollector:
    """Gives Prometheus the counters of this process's engine, once there are any."""

    def describe(self) -> list[Any]:
        """Return nothing: what there is depends on the engine."""
        return []

    def collect(self) -> Iterator[Any]:
        """Give the counters as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counters = read_counters()
        for name, text in METRICS.items() if counters is not None else ():
            kind = GaugeMetricFamily if name in GAUGES else CounterMetricFamily
            yield kind(f"hgpu_expert_{_full(name)}", text, value=float(getattr(counters, name)))


def counters_path() -> Path:
    """Return where this process's engine has its counters; children will return the same."""
    name = f"hgpu-experts-{os.getpid()}-{secrets.token_hex(8)}"
    return Path(os.environ.setdefault(FILE_VARIABLE, str(Path(tempfile.gettempdir()) / name)))


def read_counters() -> ExpertCounters | None:
    """Return what the engine published last; None before it has."""
    try:
        values = np.fromfile(counters_path(), np.float64)
    except FileNotFoundError:
        return None
    if len(values) != len(NAMES):
        return None
    counters = ExpertCounters()
    for name, value in zip(NAMES, values.tolist(), strict=True):
        setattr(counters, name, type(getattr(counters, name))(value))
    return counters


def _full(name: str) -> str:
    return name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name


NAMES = tuple(field.name for field in fields(ExpertCounters))
GAUGES = ("resident_bytes", "wide_bytes", "host_bytes")
METRICS = {
    "steps": "Steps of the engine that went through the expert cache.",
    "groups": "Kernel calls, of all layers; as many as steps times layers where no step had to be parted.",
    "wide_groups": "Kernel calls in the wide buffer.",
    "hits": "Experts that were needed and had a slot.",
    "misses": "Experts that were needed and copied while the step waited.",
    "prefetched": "Experts that were copied ahead of their layer.",
    "prefetch_hits": "Experts copied ahead that were then needed.",
    "predictions": "Experts of tokens for which some were predicted.",
    "predicted": "Experts of tokens that were among those predicted.",
    "copied_bytes": "Bytes of experts copied from the host since the engine started to serve.",
    "stall_s": "Time that steps waited for copies.",
    "resident_bytes": "Bytes of the slots on the device, of all layers.",
    "wide_bytes": "Bytes of the wide buffer on the device.",
    "host_bytes": "Bytes of all experts in host memory.",
}
