"""Fitting the step model to samples.

Relative least squares with non-negative coefficients (Lawson and Hanson's NNLS) inside a grid
over the two parameters that enter non-linearly: the knee, where a step turns from reading
weights to multiplying them, and how sharp that turn is.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hgpu.core.errors import InvalidMeasurement
from hgpu.core.model import ModelSpec
from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel, StepModel
from hgpu.latency.features import Experts, Floats, Table, columns, experts_of, table_of
from hgpu.profilers.samples import Sample, noise_of

KNEES = tuple(float(k) for k in np.geomspace(4, 4096, 41))
SHARPNESSES = (1.0, 1.5, 2.0, 4.0, 8.0, 16.0)
PHASES = ("prefill", "decode", "mixed")
FOLDS = 5


@dataclass(frozen=True, slots=True)
class FitError:
    """Cross-validated |predicted − measured|/measured of one phase."""

    phase: str
    samples: int
    median: float
    p90: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A latency model, its error by phase, and how far its samples reach."""

    latency: LatencyModel
    errors: tuple[FitError, ...]
    largest_step_tokens: float
    largest_step_context_tokens: float


def fit(samples: Sequence[Sample], model: ModelSpec, kv_capacity_tokens: int, measured: Provenance) -> Fit:
    """Return the step model of `samples` with its cross-validated error.

    The error is of scripts that the model hasn't seen: whole scripts are held out, fold by
    fold. Raises InvalidMeasurement where there are too few samples to fit or to judge.
    """
    table = table_of(samples)
    if len(table.step_s) < 12 or len(set(table.scripts)) < FOLDS:
        raise InvalidMeasurement(
            f"{len(table.step_s)} samples of {len(set(table.scripts))} scripts are too few to fit",
            f"a fit needs 12 samples of {FOLDS} scripts, so that each can be held out in turn",
            "profile with more points",
        )
    experts = experts_of(model)
    errors = _held_out_errors(table, experts)
    latency = LatencyModel(
        step=fit_step(table, experts),
        kv_capacity_tokens=kv_capacity_tokens,
        median_error=float(np.median(errors)),
        p90_error=float(np.quantile(errors, 0.9)),
        noise=noise_of(samples),
        provenance=Provenance.FITTED if measured is Provenance.MEASURED else measured,
    )
    return Fit(latency, _by_phase(table, errors), float(table.tokens.max()), float(table.context.max()))


def fit_step(table: Table, experts: Experts) -> StepModel:
    """Return the non-negative step model with the least squared relative error."""
    best: tuple[float, float, float, Floats] | None = None
    for knee, sharpness in itertools.product(KNEES, SHARPNESSES):
        residual, weights = _solve(columns(table, knee, sharpness, experts), table)
        if best is None or residual < best[0]:
            best = (residual, knee, sharpness, weights)
    assert best is not None
    _, knee, sharpness, weights = best
    overhead, linear, pair, kv, seq, prefill = (float(w) for w in weights)
    routed = experts.reuse, experts.weight_share
    return StepModel(overhead, linear, pair, kv, seq, knee, sharpness, *routed, prefill_s=prefill)


def predict(step: StepModel, table: Table, experts: Experts) -> Floats:
    """Return the predicted seconds of each row."""
    features = columns(table, step.knee_tokens, step.sharpness, experts)
    weights = [step.overhead_s, step.linear_s, step.pair_s, step.kv_s, step.seq_s, step.prefill_s]
    return np.asarray(features @ np.array(weights), dtype=np.float64)


def _solve(features: Floats, table: Table) -> tuple[float, Floats]:
    from scipy.optimize import nnls

    relative = features * (table.weights / table.step_s)[:, None]
    scale = relative.max(axis=0)
    scale[scale == 0] = 1.0
    coefficients, residual = nnls(relative / scale, table.weights)
    return float(residual), coefficients / scale


def _held_out_errors(table: Table, experts: Experts) -> Floats:
    names = sorted(set(table.scripts))
    fold_of = {name: number % FOLDS for number, name in enumerate(names)}
    folds = np.array([fold_of[name] for name in table.scripts])
    errors = np.empty(len(table.step_s))
    for fold in range(FOLDS):
        held = folds == fold
        step = fit_step(table.take(~held), experts)
        seen = table.take(held)
        errors[held] = np.abs(predict(step, seen, experts) - seen.step_s) / seen.step_s
    return errors


def _by_phase(table: Table, errors: Floats) -> tuple[FitError, ...]:
    rows = []
    for phase in PHASES:
        mine = errors[table.phases == phase]
        if len(mine):
            rows.append(FitError(phase, len(mine), float(np.median(mine)), float(np.quantile(mine, 0.9))))
    return tuple(rows)
