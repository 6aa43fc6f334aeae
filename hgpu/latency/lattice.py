"""The splits of one device into a prefill side and a decode side that its hardware can make.

Not every percentage exists. A CUDA green context takes SMs in groups: by the driver's manual (CUDA driver
API, Green Contexts, guideline by architecture) at least 2 and a multiple of 2 on compute capability 7, at
least 4 and a multiple of 2 on 8, at least 8 and a multiple of 8 from 9.0 on. What is left over goes to the
other side as it is: an H200's 132 SMs split into 112 and 20, 96 and 36, 64 and 68. Either side may be the
one that is cut, so 116 and 16 is a split too. A CPU splits by whole cores.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hgpu.core.errors import InputError
from hgpu.core.gpu import GpuType
from hgpu.core.partition import Split

_LEAST_AND_STEP = {7: (2, 2), 8: (4, 2), 9: (8, 8)}  # by the major compute capability; 9 and later alike


@dataclass(frozen=True, slots=True)
class Lattice:
    """Every split of a device of `units`: each side at least `least`, one of them a multiple of `step`."""

    units: int
    least: int
    step: int

    def __post_init__(self) -> None:
        if self.least < 1 or self.step < 1 or self.least % self.step:
            raise InputError(
                f"sides of at least {self.least} units in steps of {self.step} make no lattice",
                "both are positive, and the least side is a multiple of the step",
                "give what the device's driver reports",
            )
        if not any(True for _ in self):
            raise InputError(
                f"a device of {self.units} units can't be split",
                f"each side takes at least {self.least}, and one of them a multiple of {self.step}",
                "run both phases mixed there, or use a larger device",
            )

    def __iter__(self) -> Iterator[Split]:
        for prefill in range(self.least, self.units - self.least + 1):
            decode = self.units - prefill
            if prefill % self.step == 0 or decode % self.step == 0:
                yield Split(prefill, decode)

    @property
    def splits(self) -> tuple[Split, ...]:
        """All splits, from the fewest prefill units to the most."""
        return tuple(self)


def lattice_of(gpu: GpuType) -> Lattice:
    """Return the splits of a GPU type: SMs of an NVIDIA GPU, cores of a CPU.

    Raises InputError for a type whose units can't be split, or of which the catalog doesn't know how.
    """
    if gpu.is_cpu:
        return Lattice(gpu.cores, 1, 1)
    major = int(gpu.compute_capability.split(".")[0]) if gpu.compute_capability else 0
    if major < min(_LEAST_AND_STEP):
        raise InputError(
            f"how the units of {gpu.name} split isn't known",
            "green contexts split NVIDIA GPUs of compute capability 7.0 or later, and a CPU splits by cores",
            "run both phases mixed there, or give a Lattice of your own",
        )
    return Lattice(gpu.sm_count, *_LEAST_AND_STEP[min(major, max(_LEAST_AND_STEP))])
