"""Fitting one roof: a rate against the share of the device, from rates that were seen.

With a knee at R the roof is linear in two non-negative numbers,

    rate(r) = C · (min(r, R) + λ · max(r − R, 0)) = C·(1 − λ) · min(r, R) + C·λ · r,

so that for each R of a grid the least squares of relative error have a closed form, and λ comes out in
[0, 1] by itself. The grid is then narrowed about the best R.
"""

import numpy as np

from hgpu.latency.partition import Floats, Roof

_GRID = 64
_ROUNDS = 5  # each narrows the knee's grid by 32


def fit_roof(shares: Floats, rates: Floats) -> Roof:
    """Return the roof with the least squared relative error of the rates.

    The knee is looked for within the shares that were seen. A rate that grows with the share all the way
    has saturation 1 and decay 1.
    """
    low, high = float(shares.min()), float(shares.max())
    knee, bent, straight = high, 0.0, 0.0
    for _ in range(_ROUNDS):
        knees = np.linspace(low, high, _GRID)
        errors, bents, straights = _solve(shares, rates, knees)
        at = int(np.argmin(errors))
        knee, bent, straight = float(knees[at]), float(bents[at]), float(straights[at])
        step = knees[1] - knees[0]
        low, high = max(low, knee - step), min(high, knee + step)
    if bent <= 1e-9 * straight or knee >= shares.max() * (1 - 1e-9):
        return Roof(bent + straight)
    return Roof(bent + straight, knee, straight / (bent + straight))


def _solve(shares: Floats, rates: Floats, knees: Floats) -> tuple[Floats, Floats, Floats]:
    """Return, for each knee, the squared relative error and the two coefficients, none negative."""
    bend = np.minimum(shares, knees[:, None]) / rates
    line = np.broadcast_to(shares / rates, bend.shape)
    bb, bl, ll = (bend * bend).sum(1), (bend * line).sum(1), (line * line).sum(1)
    b1, l1 = bend.sum(1), line.sum(1)
    determinant = bb * ll - bl * bl
    regular = determinant > 1e-12 * bb * ll
    safe = np.where(regular, determinant, 1.0)
    both = np.stack([(ll * b1 - bl * l1) / safe, (bb * l1 - bl * b1) / safe])
    inside = regular & (both >= 0).all(0)
    zero = np.zeros_like(b1)
    candidates = [np.where(inside, both, 0.0), np.stack([b1 / bb, zero]), np.stack([zero, l1 / ll])]
    errors = np.stack([((c[0, :, None] * bend + c[1, :, None] * line - 1.0) ** 2).sum(1) for c in candidates])
    chosen = errors.argmin(0)
    every = np.arange(len(knees))
    bents, straights = np.stack(candidates)[chosen, :, every].T
    return errors[chosen, every], bents, straights
