"""LaMDA without a framework: factors of a weight, when which column freezes, and the ranks of LaMDA++.

LaMDA (arXiv 2406.12832) adapts a linear map by y = W' x + B S A x, with A (rank × in) frozen from the start,
S (rank × rank) trained throughout, and B (out × rank) trained at first and frozen column by column within the
first part `eta` of the steps. A and B start as singular vectors of W. Written from the equations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import floor

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import InputError

Matrix = NDArray[np.float32]
OVERSAMPLING = 8  # columns more than asked for, that the randomized method needs to find the last ones well


class Init(StrEnum):
    """What B and S start as; the adapted map equals the plain one at the start in all three.

    `spectral`: singular vectors and values, and the base loses what B S A holds of it. `balanced`: the same
    product, but S is divided by its mean singular value, and B multiplied. Adam moves all numbers alike, so a
    step of B changes the map by S times as much, and one of S by B times: at singular values of 10 the
    spectral start changes far more by B than by S, and no one learning rate suits both. `zero`: S is nothing,
    with all of the base kept.
    """

    BALANCED = "balanced"
    SPECTRAL = "spectral"
    ZERO = "zero"


@dataclass(frozen=True, slots=True)
class Factors:
    """The parts of y = base·x + b·s·a·x; `anchor` (out × rank) is b·s as it was at the start."""

    a: Matrix
    s: Matrix
    b: Matrix

    @property
    def anchor(self) -> Matrix:
        """What the base has to lose, as anchor·a, so that nothing changes at the start."""
        return self.b @ self.s

    def residual(self, weight: Matrix) -> Matrix:
        """Return the base that the factors leave of the weight they were made from."""
        return weight - self.anchor @ self.a


def decompose(
    weight: NDArray[np.floating], rank: int, init: Init = Init.BALANCED, iterations: int | None = None
) -> Factors:
    """Return the factors of a weight (out × in): the first `rank` singular triples.

    `iterations` None computes the whole decomposition; a number uses the randomized one with so many subspace
    iterations (Halko, Martinsson, Tropp 2011, algorithm 4.4; a fixed seed): far faster for large weights.
    Raises InputError where the rank isn't within 1 to the smaller side.
    """
    check_rank(rank, weight.shape)
    u, sigma, vt = _svd(weight.astype(np.float32), rank, iterations)
    a, b = np.ascontiguousarray(vt[:rank]), np.ascontiguousarray(u[:, :rank])
    if init is Init.ZERO:
        return Factors(a, np.zeros((rank, rank), dtype=np.float32), b)
    mean = float(sigma[:rank].mean()) if init is Init.BALANCED else 1.0
    scale = np.float32(mean or 1.0)  # a weight of zeros has nothing to balance
    return Factors(a, np.diag(sigma[:rank] / scale).astype(np.float32), b * scale)


def check_rank(rank: int, shape: Sequence[int], name: str = "") -> None:
    """Raise InputError where a weight of this shape can't have factors of this rank."""
    if not 1 <= rank <= min(shape):
        raise InputError(
            f"rank {rank} doesn't fit {name or 'a weight'} of {shape[0]} × {shape[1]}",
            "a rank is at least 1 and at most the smaller side",
            f"choose a rank of at most {min(shape)}, or other targets",
        )


def _svd(weight: Matrix, rank: int, iterations: int | None) -> tuple[Matrix, Matrix, Matrix]:
    if iterations is None:
        u, sigma, vt = np.linalg.svd(weight, full_matrices=False)
        return u, sigma, vt
    width = min(rank + OVERSAMPLING, *weight.shape)
    sketch = weight @ np.random.default_rng(0).standard_normal((weight.shape[1], width), dtype=np.float32)
    basis, _ = np.linalg.qr(sketch)
    for _ in range(iterations):
        basis, _ = np.linalg.qr(weight.T @ basis)
        basis, _ = np.linalg.qr(weight @ basis)
    u, sigma, vt = np.linalg.svd(basis.T @ weight, full_matrices=False)
    return basis @ u, sigma, vt


def frozen_columns(step: int, steps: int, rank: int, eta: float) -> int:
    """Return how many of B's columns are frozen during a step, counted from 0.

    Linear over the first eta·steps (a whole number of them), taken at the middle of the step and rounded to
    the nearest, so that the columns that are trained average eta·rank/2 over all steps. Those of the largest
    singular values freeze first. Raises InputError where eta isn't from 0 to 1.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta {eta:g} is no part of the steps", "it is a fraction", "choose it from 0 to 1")
    early = round(eta * steps)
    return rank if step >= early else round(rank * (2 * step + 1) / (2 * early))


def energy(sigma: NDArray[np.floating], rank: int) -> float:
    """Return the part of a weight's squared norm that its first `rank` singular values hold."""
    squares = np.square(sigma, dtype=np.float64)
    total = float(squares.sum())
    return float(squares[:rank].sum()) / total if total else 1.0


def allocate_ranks(
    spectra: Mapping[str, NDArray[np.floating]],
    mean_rank: float,
    choices: Sequence[int] = (8, 16, 32, 64),
) -> dict[str, int]:
    """Return a rank for each weight from its singular values, as LaMDA++ gives more to flatter spectra.

    All begin with the smallest choice; the weight whose rank holds the least energy is raised to the next, as
    long as the mean stays within `mean_rank` and the weight's smaller side allows it. Ties go by name.
    Raises InputError where not even the smallest choice fits the mean or a weight.
    """
    ladder = sorted(choices)
    if mean_rank < ladder[0]:
        raise InputError(
            f"a mean rank of {mean_rank:g} is too small", f"the ranks begin at {ladder[0]}", "raise it"
        )
    for name, sigma in spectra.items():
        check_rank(ladder[0], (len(sigma), len(sigma)), name)
    ranks = dict.fromkeys(sorted(spectra), ladder[0])
    spare = floor(mean_rank * len(ranks)) - sum(ranks.values())

    def rise(name: str) -> int:
        """Return by how much the next choice is larger; 0 where there is none."""
        most = len(spectra[name])
        return next((choice - ranks[name] for choice in ladder if ranks[name] < choice <= most), 0)

    while raisable := [name for name in ranks if 0 < rise(name) <= spare]:
        poorest = min(raisable, key=lambda name: energy(spectra[name], ranks[name]))
        spare -= rise(poorest)
        ranks[poorest] += rise(poorest)
    return ranks
