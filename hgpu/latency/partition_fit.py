"""Fitting the partition model to a sweep of shares.

Each operator class is timed alone at several shares of the device, with several sizes. Which of its times
are bound by compute and which by memory isn't known: rows are dealt out to the two roofs by a threshold of
their FLOPs a byte, each roof is fitted to its rows, and each row goes to the roof that makes it longer,
until none moves. All thresholds are tried, and all rows under one roof; of these fits the one with the least
Bayesian information criterion is taken, so that a roof is only reported where the rows show it. Where all
rows have the same FLOPs a byte, as decode attention has, the times can't tell the two roofs apart and either
predicts them alike. Then it is compute's for prefill, memory's for decode: contention takes from the latter.

Contention is fitted to times of decode attention alone and beside prefill.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import InvalidMeasurement
from hgpu.core.partition import PREFILL, OperatorClass
from hgpu.core.provenance import Provenance
from hgpu.latency.partition import Floats, PartitionModel, Roof, Roofs, bandwidth_part
from hgpu.latency.roof_fit import fit_roof
from hgpu.profilers.partition_samples import ContentionSample, ShareSample

Rows = NDArray[np.bool_]
LEAST_SHARES = 4  # a roof has three parameters
FOLDS = 5
_SAME = 1.05  # FLOPs a byte of the rows: the most over the least
_EXACT = 1e-6  # relative error below which one fit is as good as another


@dataclass(frozen=True, slots=True)
class ClassFit:
    """The roofs of a class; errors |predicted − measured|/measured at shares that were held out."""

    kind: OperatorClass
    roofs: Roofs
    samples: int
    least_share: float
    median_error: float
    p90_error: float


@dataclass(frozen=True, slots=True)
class ContentionFit:
    """κ within [0, 1], what least squares give without these bounds, and the errors of the times beside."""

    contention: float
    unbounded: float
    samples: int
    median_error: float
    p90_error: float


@dataclass(frozen=True, slots=True)
class PartitionFit:
    """A partition model with the error of each of its parts."""

    model: PartitionModel
    classes: tuple[ClassFit, ...]
    contention: ContentionFit
    provenance: Provenance


def fit_partition(
    sweep: Sequence[ShareSample],
    contention: Sequence[ContentionSample],
    measured: Provenance,
    overhead_s: float = 0.0,
) -> PartitionFit:
    """Return the partition model of a sweep.

    Raises InvalidMeasurement where a class was seen at too few shares, or no contention can be seen.
    """
    classes = tuple(fit_class(kind, [s for s in sweep if s.kind is kind]) for kind in OperatorClass)
    beside = fit_contention(contention)
    return PartitionFit(
        PartitionModel({row.kind: row.roofs for row in classes}, beside.contention, overhead_s),
        classes,
        beside,
        Provenance.FITTED if measured is Provenance.MEASURED else measured,
    )


def fit_class(kind: OperatorClass, samples: Sequence[ShareSample]) -> ClassFit:
    """Return the roofs of one class with their error at held-out shares."""
    table = np.array([(s.share, s.work.flops, s.work.bytes, s.seconds) for s in samples], float).reshape(
        -1, 4
    )
    shares = sorted(set(table[:, 0]))
    if len(shares) <= LEAST_SHARES:
        raise InvalidMeasurement(
            f"{kind} was timed at too few shares ({len(shares)})",
            f"a roof needs {LEAST_SHARES}, and one more that can be held out",
            "sweep more splits",
        )
    if not (table > 0).all() or not np.isfinite(table).all() or shares[-1] > 1:
        raise InvalidMeasurement(
            f"{kind} has a row that can't be",
            "shares are in (0, 1], works and seconds positive",
            "sweep again",
        )
    errors = np.empty(len(table))
    for fold in range(min(FOLDS, len(shares))):
        held = np.isin(table[:, 0], shares[fold::FOLDS])
        errors[held] = np.abs(_predict(_roofs(kind, table[~held]), table[held]) / table[held, 3] - 1.0)
    median, p90 = np.quantile(errors, [0.5, 0.9])
    return ClassFit(kind, _roofs(kind, table), len(table), float(shares[0]), float(median), float(p90))


def fit_contention(samples: Sequence[ContentionSample]) -> ContentionFit:
    """Return κ: with g the part of the bandwidth that fair sharing takes away, alone/beside = 1 − κ·g."""
    alone = np.array([s.alone_s for s in samples])
    beside = np.array([s.beside_s for s in samples])
    taken = np.array([_taken(s) for s in samples])
    if not len(samples) or float(taken.max()) < 0.1:
        raise InvalidMeasurement(
            f"{len(samples)} runs of decode beside prefill show no contention",
            "prefill should move at least a tenth of the bytes there, or nothing can be fitted",
            "sweep longer prompts, or fewer decodes",
        )
    lost = 1.0 - alone / beside
    unbounded = float((taken * lost).sum() / (taken * taken).sum())
    contention = min(max(unbounded, 0.0), 1.0)
    errors = np.abs(alone / (1.0 - contention * taken) / beside - 1.0)
    median, p90 = np.quantile(errors, [0.5, 0.9])
    return ContentionFit(contention, unbounded, len(samples), float(median), float(p90))


def _taken(sample: ContentionSample) -> float:
    own, part = sample.load.decode_attention, sample.attention_part
    beside_attention = bandwidth_part(own, sample.load.prefill_attention)
    return 1.0 - part * beside_attention - (1.0 - part) * bandwidth_part(own, sample.load.prefill_dense)


def _roofs(kind: OperatorClass, table: Floats) -> Roofs:
    """Return the pair of roofs with the least Bayesian information criterion."""
    found = [_settled(table, bound) for bound in _starts(kind, table)]
    return min((roofs for roofs in found if roofs is not None), key=lambda roofs: _criterion(roofs, table))


def _starts(kind: OperatorClass, table: Floats) -> Iterator[Rows]:
    """Yield first guesses of the rows that compute binds: those with the most FLOPs a byte."""
    intensity = table[:, 1] / table[:, 2]
    if intensity.max() < _SAME * intensity.min():
        yield np.full(len(table), kind in PREFILL)
        return
    yield np.ones(len(table), bool)
    for least in sorted(set(intensity))[1:]:
        yield intensity >= least
    yield np.zeros(len(table), bool)


def _settled(table: Floats, compute_bound: Rows) -> Roofs | None:
    """Return the roofs once no row changes sides, None where a side is left with too few rows to fit."""
    for _ in range(20):
        compute, memory = _side(table, 1, compute_bound), _side(table, 2, ~compute_bound)
        if (compute is None and compute_bound.any()) or (memory is None and not compute_bound.all()):
            return None
        roofs = Roofs(compute, memory)
        if compute is None or memory is None:
            return roofs
        longer = table[:, 1] / compute.rate(table[:, 0]) >= table[:, 2] / memory.rate(table[:, 0])
        if (longer == compute_bound).all():
            return roofs
        compute_bound = longer
    return roofs


def _side(table: Floats, column: int, rows: Rows) -> Roof | None:
    mine = table[rows]
    if len(set(mine[:, 0])) < LEAST_SHARES:
        return None
    return fit_roof(mine[:, 0], mine[:, column] / mine[:, 3])


def _predict(roofs: Roofs, table: Floats) -> Floats:
    compute_s = table[:, 1] / roofs.compute.rate(table[:, 0]) if roofs.compute else np.zeros(len(table))
    memory_s = table[:, 2] / roofs.memory.rate(table[:, 0]) if roofs.memory else np.zeros(len(table))
    return np.maximum(compute_s, memory_s)


def _criterion(roofs: Roofs, table: Floats) -> float:
    rows = len(table)
    squares = float(np.mean(np.log(_predict(roofs, table) / table[:, 3]) ** 2))
    parameters = 3 * ((roofs.compute is not None) + (roofs.memory is not None))
    return rows * float(np.log(squares + _EXACT**2)) + parameters * float(np.log(rows))
