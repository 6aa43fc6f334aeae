"""Lengths into buckets, and traces or distributions into workloads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hgpu.core.errors import InputError
from hgpu.core.workload import Bucket, Workload
from hgpu.workloads.lengths import find_lengths
from hgpu.workloads.trace import Ints, Trace

# The grid of Mélange's public release.
INPUT_EDGES = (1, 25, 100, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000)
OUTPUT_EDGES = (1, 25, 100, 250, 500, 1000, 2000, 4000, 8000)


@dataclass(frozen=True, slots=True)
class Edges:
    """Bucket edges in tokens, rising; raises InputError if they aren't.

    Neighbours a and b make the bucket (a, b], but the first one reaches down to 0, so that
    lengths up to the first edge belong somewhere; its low edge reads 0.
    """

    input: tuple[int, ...] = INPUT_EDGES
    output: tuple[int, ...] = OUTPUT_EDGES

    def __post_init__(self) -> None:
        """Refuse edges that make no buckets."""
        for side, edges in (("input", self.input), ("output", self.output)):
            rising = all(low < high for low, high in pairwise(edges))
            if len(edges) < 2 or edges[0] < 0 or not rising:
                raise InputError(
                    f"bad {side} edges {list(edges)}",
                    "they must be two or more whole numbers that rise from 0 or more",
                    "give edges such as 1, 100, 1000",
                )

    def inside(self, input_tokens: Ints, output_tokens: Ints) -> npt.NDArray[np.bool_]:
        """Tell which requests fit a bucket: both lengths from 1 to the last edge."""
        return (
            (input_tokens > 0)
            & (input_tokens <= self.input[-1])
            & (output_tokens > 0)
            & (output_tokens <= self.output[-1])
        )


DEFAULT_EDGES = Edges()


def bucketize(
    input_tokens: Ints, output_tokens: Ints, input_edges: Sequence[int], output_edges: Sequence[int]
) -> tuple[Bucket, ...]:
    """Return the buckets that hold requests, by rising edges.

    Requests with a length of 0 or beyond the last edge belong to none: the shares are parts of
    those inside and sum to 1. Each bucket has the mean lengths of its members.
    """
    edges = Edges(tuple(input_edges), tuple(output_edges))
    inside = edges.inside(input_tokens, output_tokens)
    inputs, outputs = input_tokens[inside], output_tokens[inside]
    columns = len(edges.output) - 1
    cells = _cell(inputs, edges.input) * columns + _cell(outputs, edges.output)
    counts = np.bincount(cells, minlength=1)
    # bincount adds in float64, where whole numbers stay exact up to 2^53: order can't matter.
    input_sums = np.bincount(cells, weights=inputs, minlength=1)
    output_sums = np.bincount(cells, weights=outputs, minlength=1)
    longest = np.zeros(len(counts), np.int64)
    np.maximum.at(longest, cells, inputs + outputs)
    return tuple(
        Bucket(
            *_bounds(edges.input, int(cell) // columns),
            *_bounds(edges.output, int(cell) % columns),
            input_tokens=float(input_sums[cell] / counts[cell]),
            output_tokens=float(output_sums[cell] / counts[cell]),
            share=float(counts[cell] / len(cells)),
            max_total_tokens=int(longest[cell]),
        )
        for cell in np.flatnonzero(counts)
    )


def workload_from_trace(
    trace: Trace, rate_rps: float | None = None, edges: Edges = DEFAULT_EDGES
) -> Workload:
    """Return a trace's length histogram at its own mean rate, or at another in requests/s."""
    rate_rps = trace.rate_rps if rate_rps is None else rate_rps
    return _workload(trace.name, rate_rps, trace.input_tokens, trace.output_tokens, trace.source, edges)


def workload_from_lengths(
    name: str, rate_rps: float, requests: int = 20000, seed: int = 0, edges: Edges = DEFAULT_EDGES
) -> Workload:
    """Return the histogram of that many samples of a named distribution, at a rate in requests/s."""
    lengths = find_lengths(name)
    if requests < 1:
        raise InputError(f"can't make a workload of {requests} requests", fix="give 1 or more")
    source = f"{requests} samples (seed {seed}) of {lengths.name}: {lengths.source}"
    return _workload(lengths.name, rate_rps, *lengths.sample(requests, seed), source, edges)


def check_rate(rate_rps: float) -> float:
    """Return a rate in requests/s if it is finite and positive; raise InputError otherwise."""
    if not (math.isfinite(rate_rps) and rate_rps > 0):
        raise InputError(
            f"bad rate {rate_rps}", "it isn't a positive number", "give requests per second, such as 4.5"
        )
    return rate_rps


def _workload(
    name: str, rate_rps: float, input_tokens: Ints, output_tokens: Ints, source: str, edges: Edges
) -> Workload:
    """Return a workload whose rate is that of all requests, those outside the buckets included."""
    inside = edges.inside(input_tokens, output_tokens)
    if not inside.any():
        raise InputError(
            f"no request of '{name}' fits a bucket",
            f"all {len(inside)} have a length of 0, or beyond {edges.input[-1]} in or {edges.output[-1]} out",
            "raise the last edges, or check the source",
        )
    return Workload(
        name=name,
        rate_rps=check_rate(rate_rps),
        buckets=bucketize(input_tokens, output_tokens, edges.input, edges.output),
        requests=len(inside),
        source=source,
        outside_share=float(np.count_nonzero(~inside) / len(inside)),
    )


def _cell(tokens: Ints, edges: tuple[int, ...]) -> Ints:
    """Index of each length's interval (a, b]; lengths up to the first edge are in the first."""
    return np.maximum(np.searchsorted(edges, tokens, side="left") - 1, 0).astype(np.int64)


def _bounds(edges: tuple[int, ...], index: int) -> tuple[int, int]:
    return (edges[index] if index else 0, edges[index + 1])
