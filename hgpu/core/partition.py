"""The parts of a device that prefill and decode run on beside each other, and what each does there.

An operator class holds the operators that run alike: the matrix multiplications of prefill (compute-bound as
a rule) and of decode (bound by reading weights), the attention of prompts and that of decode (bound by
reading KV).
"""

from dataclasses import dataclass
from enum import StrEnum

from hgpu.core.errors import InputError


@dataclass(frozen=True, slots=True, order=True)
class Split:
    """The units (SMs, or a CPU's cores) of the prefill side and those of the decode side."""

    prefill_units: int
    decode_units: int

    @property
    def units(self) -> int:
        """Units of the whole device."""
        return self.prefill_units + self.decode_units

    @property
    def prefill_share(self) -> float:
        """Share of the device that prefill has; decode has the rest."""
        return self.prefill_units / self.units

    @property
    def decode_share(self) -> float:
        """Share of the device that decode has."""
        return self.decode_units / self.units

    def __str__(self) -> str:
        return f"{self.prefill_units}/{self.decode_units}"


class OperatorClass(StrEnum):
    """Operators of one phase that share their roofs."""

    PREFILL_DENSE = "prefill-dense"
    PREFILL_ATTENTION = "prefill-attention"
    DECODE_DENSE = "decode-dense"
    DECODE_ATTENTION = "decode-attention"


PREFILL = (OperatorClass.PREFILL_DENSE, OperatorClass.PREFILL_ATTENTION)


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations, and bytes that come from or go to device memory."""

    flops: float
    bytes: float

    def __post_init__(self) -> None:
        if not (0 <= self.flops < float("inf") and 0 <= self.bytes < float("inf")):
            raise InputError(f"{self.flops} FLOPs and {self.bytes} bytes are no work", "both are 0 or more")


@dataclass(frozen=True, slots=True)
class Load:
    """What a step of each phase does, run beside each other on one device."""

    prefill_dense: Work
    prefill_attention: Work
    decode_dense: Work
    decode_attention: Work

    def __post_init__(self) -> None:
        if not all(work.flops and work.bytes for work in (self.prefill_dense, self.decode_dense)):
            raise InputError(
                "a phase without matrix multiplications can't be split from the other",
                "each step reads weights and multiplies them",
                "run a device with a single phase whole",
            )

    def of(self, kind: OperatorClass) -> Work:
        """Return the work of one operator class."""
        work: Work = getattr(self, kind.name.lower())
        return work
