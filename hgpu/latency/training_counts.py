"""How many parameters each method trains.

LoRA (arXiv 2106.09685): r·(in + out) a module. LaMDA (arXiv 2406.12832): y = Wx + s·B·S·A·x with A frozen,
S (r×r) trained, and B (out×r) frozen column by column over the first part η of the steps:

    peak = M·r² + r·Σout    mean = M·r² + (η/2)·r·Σout    final = M·r²
"""

from collections.abc import Sequence

from hgpu.core.training import Linear, TrainableCount


def lora_count(targets: Sequence[Linear], rank: int) -> TrainableCount:
    """Return LoRA's parameters, the same in every step."""
    params = sum(rank * (t.in_features + t.out_features) * t.count for t in targets)
    return TrainableCount(params, float(params), params)


def lamda_count(targets: Sequence[Linear], rank: int, freeze_share: float) -> TrainableCount:
    """Return LaMDA's parameters; `freeze_share` is η, the part of the steps over which B is frozen."""
    squares = rank * rank * sum(t.count for t in targets)
    columns = rank * sum(t.out_features * t.count for t in targets)
    return TrainableCount(squares + columns, squares + freeze_share / 2 * columns, squares)


def frozen_count(targets: Sequence[Linear], rank: int) -> int:
    """Return the frozen parameters that LaMDA adds: A of each module. (B's become frozen in time.)"""
    return sum(rank * t.in_features * t.count for t in targets)
