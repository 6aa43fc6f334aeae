"""The placement in memory tiers that makes a step as short as possible, exactly.

For every tensor one node mask is chosen, a set of tiers, as the kernel takes it. Its cards hold equal parts;
local memory, where the mask has it beside cards, holds at most as much as each of an even interleaving would.
The published rule's answers are all of this form, so the rule is never faster than what is found here.

    min  f + b + β·Σ s_i + (1 − β)·m
    f ≥ the forward pass by compute, by link and by every tier; b the same backward; m ≥ s_i
    s_i = Σ_tensors (optimizer bytes / size)·(bytes in tier i) / bandwidth of i
    Σ_tensors bytes in i ≤ capacity of i

A tensor with mask K has bytes size/|K| in each of its cards, or, with ℓ ≤ size/|K| of it local,
(size − ℓ)/(|K| − 1): linear in the choice and in ℓ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from hgpu.core.errors import Infeasible
from hgpu.core.gpu import MemoryTier
from hgpu.core.placement import PlacedTensor, TierPlacement, spread
from hgpu.core.training_tensors import TrainingShape, TrainingTensor, host_bytes
from hgpu.latency.offloaded_step import Devices, compute_s, link_s, moved, step_time
from hgpu.solvers.highs import Outcome, minimize
from hgpu.solvers.matrix import Floats, Ints, Matrix
from hgpu.solvers.tier_placement import latency_first

GIB = 2.0**30  # the program counts in GiB, so that its numbers are near 1
TIME_LIMIT_S = 60.0
AS_SHORT = 1e-9  # relative: what the solver's own tolerances leave open


@dataclass(frozen=True, slots=True)
class Choice:
    """One mask for one tensor: the variable that chooses it, and the one of its local GiB beside cards."""

    tensor: TrainingTensor
    mask: tuple[int, ...]
    chosen: int
    local: int | None

    def terms(self, tier: int) -> Iterator[tuple[int, float]]:
        """Yield variables and coefficients of its GiB in a tier."""
        size, cards = self.tensor.size_bytes / GIB, len(self.mask) - (self.local is not None)
        if tier not in self.mask:
            return
        if self.local is not None and tier == 0:
            yield self.local, 1.0
            return
        yield self.chosen, size / cards
        if self.local is not None:
            yield self.local, -1.0 / cards


@dataclass(frozen=True, slots=True)
class Shortest:
    """The placement of the shortest predicted step, its seconds, and whether the search proved it."""

    placement: TierPlacement
    step_s: float
    proven: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """The published rule beside the shortest step. `rule` is None where it fills a tier, for `why`."""

    best: Shortest
    rule: TierPlacement | None
    rule_s: float | None
    why: str = ""

    @property
    def gap(self) -> float | None:
        """By how much the rule's step is longer, 0.02 for 2 %; None where the rule doesn't fit."""
        return None if self.rule_s is None else self.rule_s / self.best.step_s - 1


def shortest_step(
    tensors: Sequence[TrainingTensor],
    tiers: Sequence[MemoryTier],
    shape: TrainingShape,
    devices: Devices,
    blend: float = 1.0,
) -> Shortest:
    """Place tensors so that the predicted step is shortest; `tiers` are local memory and then the cards.

    Raises Infeasible where they don't fit in any such way.
    """
    matrix = Matrix()
    choices = _choices(matrix, tensors, len(tiers))
    for number, tier in enumerate(tiers):
        _bound_capacity(matrix, choices, number, tier)
    _count_optimizer(matrix, choices, tiers, blend)
    for backward in (False, True):
        _count_pass(matrix, choices, tensors, tiers, shape, devices, backward)
    answer = minimize(matrix, 0.0, TIME_LIMIT_S)
    if answer.outcome is Outcome.INFEASIBLE:
        raise _too_small(tensors, tiers)
    placement = _placement(choices, answer.values, tiers)
    return Shortest(
        placement,
        step_time(placement, shape, devices, blend).total_s,
        answer.outcome is Outcome.PROVEN,
    )


def compared(
    tensors: Sequence[TrainingTensor],
    tiers: Sequence[MemoryTier],
    shape: TrainingShape,
    devices: Devices,
    blend: float = 1.0,
) -> Comparison:
    """Return the published rule's placement beside the shortest; the rule's itself where it is as short.

    Raises Infeasible where not even the shortest fits.
    """
    best = shortest_step(tensors, tiers, shape, devices, blend)
    try:
        rule = latency_first(tensors, tiers)
    except Infeasible as error:
        return Comparison(best, None, None, error.why)
    rule_s = step_time(rule, shape, devices, blend).total_s
    if rule_s <= best.step_s * (1 + AS_SHORT):
        best = Shortest(rule, rule_s, best.proven)
    return Comparison(best, rule, rule_s)


def _choices(matrix: Matrix, tensors: Sequence[TrainingTensor], tiers: int) -> list[Choice]:
    """Add a variable for every tensor and mask, and the rows that choose one mask a tensor."""
    choices = []
    masks = [mask for size in range(1, tiers + 1) for mask in combinations(range(tiers), size)]
    for tensor in tensors:
        row = matrix.add_rows(1, 1.0, 1.0)
        for mask in masks:
            chosen = matrix.add_variables(1, upper=1.0, integer=True)
            matrix.add_entries(row, chosen, 1.0)
            local = None
            if mask[0] == 0 and len(mask) > 1:
                most = tensor.size_bytes / GIB / len(mask)
                variable = matrix.add_variables(1, upper=most)
                matrix.add_entries(matrix.add_rows(1, upper=0.0), [variable[0], chosen[0]], [1.0, -most])
                local = int(variable[0])
            choices.append(Choice(tensor, mask, int(chosen[0]), local))
    return choices


def _bound_capacity(matrix: Matrix, choices: Sequence[Choice], number: int, tier: MemoryTier) -> None:
    row = matrix.add_rows(1, upper=tier.capacity_bytes / GIB)
    for choice in choices:
        for variable, coefficient in choice.terms(number):
            matrix.add_entries(row, variable, coefficient)


def _count_optimizer(
    matrix: Matrix, choices: Sequence[Choice], tiers: Sequence[MemoryTier], blend: float
) -> None:
    """Add s_i with cost β and their maximum with cost 1 − β."""
    slowest = matrix.add_variables(1, 1.0 - blend)
    for number, tier in enumerate(tiers):
        seconds = matrix.add_variables(1, blend)
        bandwidth = tier.host_bandwidth_bytes_per_s / GIB
        sums = matrix.add_rows(1, 0.0, 0.0)
        matrix.add_entries(sums, seconds, 1.0)
        for choice in choices:
            per_byte = choice.tensor.optimizer_bytes / choice.tensor.size_bytes / bandwidth
            _add_terms(matrix, sums, choice, number, -per_byte)
        matrix.add_entries(matrix.add_rows(1, lower=0.0), [slowest[0], seconds[0]], [1.0, -1.0])


def _count_pass(
    matrix: Matrix,
    choices: Sequence[Choice],
    tensors: Sequence[TrainingTensor],
    tiers: Sequence[MemoryTier],
    shape: TrainingShape,
    devices: Devices,
    backward: bool,
) -> None:
    """Add a pass's seconds, which are at least those of compute, of the link and of every tier."""
    seconds = matrix.add_variables(1, 1.0)
    fixed_s = max(compute_s(shape, devices, backward), link_s(tensors, shape.devices, devices, backward))
    matrix.add_entries(matrix.add_rows(1, lower=fixed_s), seconds, 1.0)
    for number, tier in enumerate(tiers):
        row = matrix.add_rows(1, lower=0.0)
        matrix.add_entries(row, seconds, 1.0)
        bandwidth = tier.device_bandwidth_bytes_per_s / GIB
        for choice in choices:
            per_byte = sum(moved(choice.tensor, backward)) / choice.tensor.size_bytes / bandwidth
            _add_terms(matrix, row, choice, number, -per_byte)


def _add_terms(matrix: Matrix, row: Ints, choice: Choice, tier: int, factor: float) -> None:
    for variable, coefficient in choice.terms(tier):
        matrix.add_entries(row, variable, factor * coefficient)


def _placement(choices: Sequence[Choice], values: Floats, tiers: Sequence[MemoryTier]) -> TierPlacement:
    placed = [
        PlacedTensor(choice.tensor, _bytes_by_tier(choice, values, len(tiers)))
        for choice in choices
        if values[choice.chosen] > 0.5
    ]
    return TierPlacement(tuple(tiers), tuple(placed))


def _bytes_by_tier(choice: Choice, values: Floats, tiers: int) -> tuple[int, ...]:
    size = choice.tensor.size_bytes
    if choice.local is None:
        return spread(size, choice.mask, tiers)
    local = min(round(values[choice.local] * GIB), size // len(choice.mask))
    return (local, *spread(size - local, choice.mask[1:], tiers)[1:])


def _too_small(tensors: Sequence[TrainingTensor], tiers: Sequence[MemoryTier]) -> Infeasible:
    wanted, there = host_bytes(tensors), sum(tier.capacity_bytes for tier in tiers)
    return Infeasible(
        "the training step doesn't fit in the memory tiers",
        f"it keeps {wanted / GIB:.1f} GiB; {len(tiers)} tiers hold {there / GIB:.1f} GiB",
        "add memory or a card, or train with a smaller batch or context",
    )
