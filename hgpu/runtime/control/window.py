"""The live length histogram: requests of late, on top of those that were planned for.

A request counts for 1 when it is seen and for half after each half-life. The plan's own workload counts for
`prior_requests` that never fade. So a bucket that was planned for keeps its part of the fleet though nobody
asked lately, and new lengths show as soon as they are many. Cells are those of the plan's edges; with n a
cell's faded count, p its planned share and m the prior requests, its share is (n + m·p)/(Σn + m).
"""

from collections.abc import Iterable

import numpy as np

from hgpu.core.workload import Bucket, Workload
from hgpu.runtime.control.marginals import Floats, Histogram, fitted, regridded

FADED = 1e-3  # of a request: a cell with fewer that wasn't planned for is empty again


class LengthWindow:
    """Counts requests by length; time only goes forward."""

    def __init__(self, prior: Workload, half_life_s: float = 900.0, prior_requests: float = 500.0) -> None:
        self.prior, self.half_life_s = prior, half_life_s
        self.input_highs = sorted({bucket.input_high for bucket in prior.buckets})
        self.output_highs = sorted({bucket.output_high for bucket in prior.buckets})
        shape = (len(self.input_highs), len(self.output_highs))
        self.counts, self.inputs, self.outputs = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.outside = 0.0
        self.longest = np.zeros(shape, np.int64)
        self.planned, self.planned_inputs, self.planned_outputs = (np.zeros(shape) for _ in range(3))
        self.now_s = 0.0
        for bucket in prior.buckets:
            cell = self._cell(bucket.input_high, bucket.output_high)
            weight = prior_requests * bucket.share
            self.planned[cell] += weight
            self.planned_inputs[cell] += weight * bucket.input_tokens
            self.planned_outputs[cell] += weight * bucket.output_tokens
            self.longest[cell] = max(self.longest[cell], bucket.max_total_tokens)

    def _cell(self, input_tokens: int, output_tokens: int) -> tuple[int, int]:
        return (
            int(np.searchsorted(self.input_highs, input_tokens)),
            int(np.searchsorted(self.output_highs, output_tokens)),
        )

    def fade(self, now_s: float) -> None:
        """Let time pass."""
        part = 0.5 ** ((now_s - self.now_s) / self.half_life_s)
        for kept in (self.counts, self.inputs, self.outputs):
            kept *= part
        self.outside *= part
        self.now_s = now_s

    def add(self, lengths: Iterable[tuple[int, int]]) -> None:
        """Count requests of (input, output) tokens that were seen now."""
        for input_tokens, output_tokens in lengths:
            cell = self._cell(input_tokens, output_tokens)
            if cell[0] >= len(self.input_highs) or cell[1] >= len(self.output_highs):
                self.outside += 1
                continue
            self.counts[cell] += 1
            self.inputs[cell] += input_tokens
            self.outputs[cell] += output_tokens
            self.longest[cell] = max(self.longest[cell], input_tokens + output_tokens)

    def add_histograms(self, inputs: Histogram, outputs: Histogram) -> None:
        """Count requests of which only the histograms of inputs and of outputs are known.

        A cell's mean lengths are those known so far, scaled to the tokens that were counted, as far as the
        cell's bounds let them.
        """
        if min(inputs.requests, outputs.requests) <= 0:
            return
        total = self.counts + self.planned
        rows, columns = regridded(inputs, self.input_highs), regridded(outputs, self.output_highs)
        joint = fitted(total, rows, columns)
        mean_in, mean_out = self._means()
        self.counts += joint
        self.inputs += joint * _scaled(joint, mean_in, inputs.tokens, self.input_highs, 0)
        self.outputs += joint * _scaled(joint, mean_out, outputs.tokens, self.output_highs, 1)

    def _means(self) -> tuple[Floats, Floats]:
        """The mean lengths of each cell; its middle where nobody was in it."""
        total = self.counts + self.planned
        middle_in = np.broadcast_to(_middles(self.input_highs)[:, None], total.shape)
        middle_out = np.broadcast_to(_middles(self.output_highs), total.shape)
        known = total > FADED
        return (
            np.divide(self.inputs + self.planned_inputs, total, out=middle_in.copy(), where=known),
            np.divide(self.outputs + self.planned_outputs, total, out=middle_out.copy(), where=known),
        )

    def workload(self, rate_rps: float) -> Workload:
        """Return the histogram as it is now, at a rate."""
        total = self.counts + self.planned
        mean_in, mean_out = self._means()
        cells = [
            (i, j) for i, j in np.ndindex(*total.shape) if self.planned[i, j] > 0 or self.counts[i, j] > FADED
        ]
        whole = sum(float(total[cell]) for cell in cells)
        buckets = tuple(
            self._bucket(*cell, float(mean_in[cell]), float(mean_out[cell]), float(total[cell]) / whole)
            for cell in cells
        )
        return Workload(
            f"{self.prior.name} live",
            rate_rps,
            buckets,
            round(whole),
            f"requests of late (half-life {self.half_life_s:g} s) on top of {self.prior.source}",
            self.outside / (whole + self.outside),
        )

    @property
    def cells(self) -> tuple[Bucket, ...]:
        """All cells there are, seen or not, to route by."""
        return tuple(self._bucket(i, j, 0.0, 0.0, 0.0) for i, j in np.ndindex(*self.counts.shape))

    def _bucket(self, i: int, j: int, input_tokens: float, output_tokens: float, share: float) -> Bucket:
        return Bucket(
            self.input_highs[i - 1] if i else 0,
            self.input_highs[i],
            self.output_highs[j - 1] if j else 0,
            self.output_highs[j],
            input_tokens,
            output_tokens,
            share,
            int(self.longest[i, j]),
        )


def _middles(highs: list[int]) -> Floats:
    middles: Floats = (np.array([0.0, *highs[:-1]]) + np.array(highs, float)) / 2
    return middles


def _scaled(joint: Floats, means: Floats, tokens: float, highs: list[int], axis: int) -> Floats:
    """Return the means, scaled so that the joint counts have that many tokens, inside of their cells."""
    counted = float((joint * means).sum())
    shape = (-1, 1) if axis == 0 else (1, -1)
    high = np.array(highs, float).reshape(shape)
    low = np.array([0, *highs[:-1]], float).reshape(shape)
    scaled: Floats = means * (tokens / counted if counted else 1.0)
    return scaled.clip(np.minimum(low + 1, high), high)
