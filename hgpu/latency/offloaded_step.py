"""The time of a training step whose parameters and optimizer lie in host memory tiers.

A proposal of ours after arXiv 2507.03305, whose bandwidth tables weren't to be had; nothing of it was
measured on CXL hardware. For N devices of F FLOP/s, each with a link of L bytes/s, P parameters, and t tokens
a device:

    forward    max(2P·t / F, total bytes / (N·L), bytes of a tier / its bandwidth to devices)
    backward   the same with 6P·t, as checkpointed layers are computed again; both with attention if told
    optimizer  M + β·(S − M): S the sum, M the largest of bytes of a tier / its bandwidth to the host

Over the link, the larger direction counts; in a tier, both directions add up. So a tensor in equal parts on n
cards moves at min(N·L, ΣBW): striping. S is what a core sees that waits for one tier after the other, M what
cores see that always find work on every tier; β between them is fitted, 1 where nobody has measured it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hgpu.core.errors import InputError
from hgpu.core.placement import TierPlacement
from hgpu.core.training_tensors import TrainingShape, TrainingTensor

BACKWARD_PASSES = 3  # a backward pass is two forward ones, and the forward one computed again


@dataclass(frozen=True, slots=True)
class Devices:
    """What computes: each device's FLOP/s (achieved, not peak) and bytes/s in one direction of its link."""

    flops_per_s: float
    link_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step's three parts, and what bounds the two on the device: compute, link or a tier."""

    forward_s: float
    backward_s: float
    optimizer_s: float
    forward_bound: str
    backward_bound: str

    @property
    def total_s(self) -> float:
        """Seconds of the step; the parts follow one another."""
        return self.forward_s + self.backward_s + self.optimizer_s


def step_time(
    placement: TierPlacement, shape: TrainingShape, devices: Devices, blend: float = 1.0
) -> StepTime:
    """Return the predicted time of one step. `blend` is β: 0 all tiers at once, 1 one after the other."""
    forward = pass_terms(placement, shape, devices, backward=False)
    backward = pass_terms(placement, shape, devices, backward=True)
    bounds = [max(terms, key=lambda name: terms[name]) for terms in (forward, backward)]
    return StepTime(
        forward[bounds[0]], backward[bounds[1]], optimizer_s(placement, blend), bounds[0], bounds[1]
    )


def optimizer_s(placement: TierPlacement, blend: float = 1.0) -> float:
    """Return the seconds of the optimizer step."""
    by_tier = optimizer_tier_s(placement)
    slowest = max(by_tier)
    return slowest + blend * (sum(by_tier) - slowest)


def optimizer_tier_s(placement: TierPlacement) -> list[float]:
    """Return the seconds that the optimizer's traffic keeps each tier busy."""
    return [
        sum(row.tensor.optimizer_bytes * row.share(number) for row in placement.placed)
        / tier.host_bandwidth_bytes_per_s
        for number, tier in enumerate(placement.tiers)
    ]


def fit_blend(measured: Iterable[tuple[Sequence[float], float]]) -> float:
    """Return β from measured steps: the seconds that each tier alone would take, and those of the step.

    β = Σ(S − M)(t − M) / Σ(S − M)², least squares through the origin, within 0 and 1. Raises InputError where
    no step used two tiers.
    """
    rows = [(sum(tiers) - max(tiers), seconds - max(tiers)) for tiers, seconds in measured]
    weight = sum(span * span for span, _ in rows)
    if not weight:
        raise InputError(
            "a blend can't be fitted",
            "no measured step works on two tiers",
            "measure one whose tensors are interleaved",
        )
    return min(1.0, max(0.0, sum(span * over for span, over in rows) / weight))


def pass_terms(
    placement: TierPlacement, shape: TrainingShape, devices: Devices, *, backward: bool
) -> dict[str, float]:
    """Return the seconds of all that may bound a pass: `compute`, `link`, and each tier by its name."""
    tensors = [row.tensor for row in placement.placed]
    by_tier = {
        tier.name: sum(sum(moved(row.tensor, backward)) * row.share(number) for row in placement.placed)
        / tier.device_bandwidth_bytes_per_s
        for number, tier in enumerate(placement.tiers)
    }
    return {
        "compute": compute_s(shape, devices, backward),
        "link": link_s(tensors, shape.devices, devices, backward),
        **by_tier,
    }


def compute_s(shape: TrainingShape, devices: Devices, backward: bool) -> float:
    """Return the seconds that a device computes in a pass."""
    passes = BACKWARD_PASSES if backward else 1
    return passes * shape.forward_flops_per_device / devices.flops_per_s


def link_s(tensors: Sequence[TrainingTensor], count: int, devices: Devices, backward: bool) -> float:
    """Return the seconds that the busier direction of the devices' links takes in a pass."""
    rows = [moved(tensor, backward) for tensor in tensors]
    busier = max(sum(to_device for to_device, _ in rows), sum(to_host for _, to_host in rows))
    return busier / (count * devices.link_bytes_per_s)


def moved(tensor: TrainingTensor, backward: bool) -> tuple[int, int]:
    """Return the bytes of a tensor that go to the devices and back to the host in a pass."""
    if backward:
        return tensor.to_device_backward_bytes, tensor.to_host_backward_bytes
    return tensor.to_device_forward_bytes, tensor.to_host_forward_bytes
