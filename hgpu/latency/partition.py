"""How long each phase takes when prefill and decode run beside each other on parts of one GPU.

After Nexus (arXiv 2507.06608, its latency model), whose equations are partly rebuilt from its prose.

**Share.** A phase is the sum of its operator classes, each the longer of its compute and its memory time.
A class's rate at share r of the SMs grows with r up to a saturation R, then by the decay λ only:

    rate(r) = C · r                      up to R
    rate(r) = C · (R + λ · (r − R))      beyond

so compute takes c / rate(r) for c FLOPs. The paper lets memory keep its bandwidth at any share. A few SMs
can't draw all of HBM's, so memory has a roof of the same form here; `flat` is the paper's.

**Contention.** Decode attention reads KV while prefill reads too. With P the part of prefill's time that
its attention takes, m the bytes of decode attention (d), of prefill attention (1) and of prefill's dense
weights (2), and κ how far the two get into each other's way (1 is the paper's, 0 none):

    B_dec = B · (1 − κ + κ · [P · m_d/(m_d + m_1) + (1 − P) · m_d/(m_d + m_2)])

P depends on the prefill side's share, so decode's time is not monotone in its own: what searches the splits
can't bisect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgpu.core.errors import InputError
from hgpu.core.partition import Load, OperatorClass, Split, Work
from hgpu.latency.lattice import Lattice

Floats = NDArray[np.float64]
_ANY_SHARE = 1e-6  # far below one SM of the largest GPU


@dataclass(frozen=True, slots=True)
class Roof:
    """A rate (FLOPs or bytes a second) against the share of the device.

    `per_s` is C, what the whole device would give if the rate never saturated; `saturation` is R in (0, 1],
    `decay` λ in [0, 1].
    """

    per_s: float
    saturation: float = 1.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.per_s < float("inf") and 0 < self.saturation <= 1 and 0 <= self.decay <= 1):
            raise InputError(
                f"{self} is no roof", "it has a positive rate, a saturation in (0, 1] and a decay in [0, 1]"
            )

    def rate(self, share: Any) -> Any:
        """Return the rate at a share (a float or an array)."""
        beyond = np.maximum(share - self.saturation, 0.0)
        return self.per_s * (np.minimum(share, self.saturation) + self.decay * beyond)


def flat(per_s: float) -> Roof:
    """Return the roof of a rate that every share reaches."""
    return Roof(per_s / _ANY_SHARE, _ANY_SHARE, 0.0)


@dataclass(frozen=True, slots=True)
class Roofs:
    """The two roofs of an operator class; None where it was never seen bound by that one."""

    compute: Roof | None
    memory: Roof | None

    def __post_init__(self) -> None:
        if self.compute is None and self.memory is None:
            raise InputError("an operator class without a roof takes no time", "one of the two must be known")


@dataclass(frozen=True, slots=True)
class PartitionModel:
    """The roofs of every operator class, the contention κ, and each phase's fixed seconds a step."""

    roofs: Mapping[OperatorClass, Roofs]
    contention: float = 1.0
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        missing = [kind for kind in OperatorClass if kind not in self.roofs]
        if missing or not 0 <= self.contention <= 1 or not 0 <= self.overhead_s < float("inf"):
            raise InputError(
                "the partition model can't be used",
                f"roofs missing: {', '.join(missing) or 'none'}; contention {self.contention:g} (0 to 1), "
                f"overhead {self.overhead_s:g} s",
                "give roofs for every operator class",
            )

    def phases_s(self, load: Load, prefill_share: Any, decode_share: Any) -> tuple[Any, Any]:
        """Return the seconds of prefill and of decode, for shares that are floats or arrays alike."""
        dense_s = self._class_s(load, OperatorClass.PREFILL_DENSE, prefill_share)
        attention_s = self._class_s(load, OperatorClass.PREFILL_ATTENTION, prefill_share)
        prefill_s = dense_s + attention_s
        left = self._bandwidth_left(load, attention_s / prefill_s)
        decode_s = self._class_s(load, OperatorClass.DECODE_DENSE, decode_share) + self._class_s(
            load, OperatorClass.DECODE_ATTENTION, decode_share, left
        )
        return self.overhead_s + prefill_s, self.overhead_s + decode_s

    def _class_s(self, load: Load, kind: OperatorClass, share: Any, bandwidth_left: Any = 1.0) -> Any:
        roofs, work = self.roofs[kind], load.of(kind)
        compute_s = work.flops / roofs.compute.rate(share) if roofs.compute else 0.0
        memory_s = work.bytes / (roofs.memory.rate(share) * bandwidth_left) if roofs.memory else 0.0
        return np.maximum(compute_s, memory_s)

    def _bandwidth_left(self, load: Load, attention_part: Any) -> Any:
        own = load.decode_attention
        fair = attention_part * bandwidth_part(own, load.prefill_attention)
        fair = fair + (1.0 - attention_part) * bandwidth_part(own, load.prefill_dense)
        return 1.0 - self.contention + self.contention * fair


def bandwidth_part(own: Work, other: Work) -> float:
    """Return the part of the bandwidth that goes to `own` where both draw by the bytes they move."""
    return own.bytes / (own.bytes + other.bytes) if own.bytes else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class PhaseTimes:
    """The predicted seconds of each phase's step under each split, in the lattice's order."""

    splits: tuple[Split, ...]
    prefill_s: Floats
    decode_s: Floats


def phase_times(model: PartitionModel, load: Load, lattice: Lattice) -> PhaseTimes:
    """Return what every split of the lattice would make of a load."""
    splits, prefill_shares, decode_shares = _shares(lattice)
    return PhaseTimes(splits, *model.phases_s(load, prefill_shares, decode_shares))


@cache
def _shares(lattice: Lattice) -> tuple[tuple[Split, ...], Floats, Floats]:
    splits = lattice.splits
    shares = np.array([[s.prefill_share, s.decode_share] for s in splits]).T
    shares.setflags(write=False)
    return splits, shares[0], shares[1]
