"""What vLLM's `/metrics` say of the load: requests that ended, their lengths, and those in flight."""

from dataclasses import dataclass
from math import inf

from hgpu.core.errors import EngineError
from hgpu.runtime.control.marginals import Histogram

ENDED = "vllm:request_success"
INPUTS, OUTPUTS = "vllm:request_prompt_tokens", "vllm:request_generation_tokens"
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
NEEDED = (ENDED, INPUTS, OUTPUTS, RUNNING, WAITING)


@dataclass(frozen=True, slots=True)
class Scrape:
    """The counters of one engine's server since it started, and its gauges now."""

    ended: float
    inputs: Histogram
    outputs: Histogram
    running: float
    waiting: float

    @property
    def in_flight(self) -> float:
        """Requests that run or wait."""
        return self.running + self.waiting


@dataclass(frozen=True, slots=True)
class Passed:
    """What happened between two scrapes, and the queue at the later one."""

    arrived: float
    ended: float
    inputs: Histogram
    outputs: Histogram
    waiting: float


def parse_metrics(text: str) -> Scrape:
    """Return the scrape of a server's answer, summed over its engines and labels.

    Raises EngineError where the text isn't Prometheus', or lacks a metric that is needed.
    """
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    except (ValueError, KeyError) as error:
        raise EngineError("an engine's metrics can't be read", str(error)) from error
    missing = [name for name in NEEDED if name not in families]
    if missing:
        raise EngineError(
            f"an engine's metrics lack {', '.join(missing)}",
            "the load is told by them, and by nothing else",
            "name the /metrics of vLLM 0.26 or later, with its statistics on",
        )

    def total(name: str, suffix: str = "") -> float:
        return sum(sample.value for sample in families[name] if sample.name == name + suffix)

    def histogram(name: str) -> Histogram:
        below: dict[float, float] = {}
        for sample in families[name]:
            if sample.name == f"{name}_bucket":
                edge = float(sample.labels["le"])
                below[edge] = below.get(edge, 0.0) + sample.value
        edges = sorted({*below, inf})
        counts = [below.get(edge, total(name, "_count")) for edge in edges]
        each = [count - before for count, before in zip(counts, [0.0, *counts[:-1]], strict=True)]
        return Histogram(tuple(edges), tuple(each), total(name, "_sum"))

    return Scrape(
        total(ENDED, "_total"), histogram(INPUTS), histogram(OUTPUTS), total(RUNNING), total(WAITING)
    )


def passed(before: Scrape, after: Scrape) -> Passed:
    """Return what happened between two scrapes of one server.

    A server that was started anew counts from zero again: all that it says happened since. Requests that
    came are those that ended and those that are in flight now and weren't.
    """
    if after.ended < before.ended or after.inputs.requests < before.inputs.requests:
        empty = Histogram(after.inputs.edges, (0.0,) * len(after.inputs.edges), 0.0)
        before = Scrape(0.0, empty, empty, 0.0, 0.0)
    ended = after.ended - before.ended
    return Passed(
        max(0.0, ended + after.in_flight - before.in_flight),
        ended,
        _difference(before.inputs, after.inputs),
        _difference(before.outputs, after.outputs),
        after.waiting,
    )


def _difference(before: Histogram, after: Histogram) -> Histogram:
    earlier = dict(zip(before.edges, before.counts, strict=True))
    counts = tuple(
        max(0.0, count - earlier.get(edge, 0.0))
        for edge, count in zip(after.edges, after.counts, strict=True)
    )
    return Histogram(after.edges, counts, max(0.0, after.tokens - before.tokens))
