"""From samples to the columns of a linear fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hgpu.core.model import ModelSpec
from hgpu.core.step import at_most_one, matmul_load
from hgpu.profilers.samples import Sample

Floats = NDArray[np.float64]
STEADY_SPREAD = 0.05  # of repeats on a quiet machine


@dataclass(frozen=True, slots=True)
class Table:
    """Samples as arrays of equal length: the batch, the seconds, the weight and the script of each.

    `prefills` is 1 where a step has prefill, else 0.
    A weight is 1/(5 % + relative spread of the repeats): what was measured with little noise counts
    for more, so that a busy moment of a shared machine doesn't bend the fit.
    """

    tokens: Floats
    pairs: Floats
    context: Floats
    seqs: Floats
    prefills: Floats
    step_s: Floats
    weights: Floats
    scripts: NDArray[np.str_]
    phases: NDArray[np.str_]

    def take(self, rows: NDArray[np.bool_]) -> "Table":
        """Return the rows where the mask is true."""
        return Table(*(getattr(self, name)[rows] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Experts:
    """How a mixture of experts reads its weights: see StepModel. Zero for dense models."""

    reuse: float
    weight_share: float


def table_of(samples: Sequence[Sample]) -> Table:
    """Return the samples as arrays."""
    batches = [s.batch for s in samples]
    return Table(
        tokens=np.array([b.tokens for b in batches], float),
        pairs=np.array([b.prefill_pairs for b in batches], float),
        context=np.array([b.decode_context_tokens + b.prefill_context_tokens for b in batches], float),
        seqs=np.array([b.seqs for b in batches], float),
        prefills=np.array([at_most_one(b.prefill_seqs) for b in batches], float),
        step_s=np.array([s.step_s for s in samples], float),
        weights=np.array([1.0 / (STEADY_SPREAD + s.spread) for s in samples], float),
        scripts=np.array([s.script for s in samples]),
        phases=np.array([b.phase for b in batches]),
    )


def experts_of(model: ModelSpec) -> Experts:
    """Return the expert terms of a model."""
    if not model.is_moe:
        return Experts(0.0, 0.0)
    held = model.moe_layers * model.experts * model.expert_bytes
    return Experts(
        1.0 - model.experts_per_token / model.experts,
        held / (held + model.dense_params * model.dense_bits / 8),
    )


def columns(table: Table, knee_tokens: float, sharpness: float, experts: Experts) -> Floats:
    """Return the feature matrix: overhead, matrix multiplications, pairs, context, sequences, prefill."""
    load = matmul_load(table.tokens, knee_tokens, sharpness, experts.reuse, experts.weight_share)
    overhead = np.ones_like(table.tokens)
    return np.column_stack([overhead, load, table.pairs, table.context, table.seqs, table.prefills])
