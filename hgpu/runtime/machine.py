"""What this machine has to run engines on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hgpu.catalog.gpus import AttachedGpu
from hgpu.core.gpu import GpuType


@dataclass(frozen=True, slots=True)
class Place:
    """The cores or GPUs that one engine is bound to."""

    cores: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU cores that this process may use, and the attached GPUs."""

    cores: tuple[int, ...]
    gpus: tuple[AttachedGpu, ...]

    def place(self, gpu: GpuType, tp: int, taken: Sequence[Place] = ()) -> Place | None:
        """Return free cores or GPUs for one engine, lowest numbers first; None where too few are left."""
        if gpu.is_cpu:
            used = {core for place in taken for core in place.cores}
            free = [core for core in self.cores if core not in used]
            wanted = gpu.cores * tp
            return Place(cores=tuple(free[:wanted])) if len(free) >= wanted else None
        busy = {index for place in taken for index in place.gpus}
        mine = [card.index for card in self.gpus if card.gpu == gpu.name and card.index not in busy]
        return Place(gpus=tuple(mine[:tp])) if len(mine) >= tp else None

    def fits(self, gpu: GpuType, tp: int) -> bool:
        """Tell whether one engine could run here, were nothing else running."""
        return self.place(gpu, tp) is not None

    def describe(self) -> str:
        """Say what there is, for error messages."""
        cards = ", ".join(card.gpu or card.nvml_name for card in self.gpus) or "no GPU"
        return f"{len(self.cores)} CPU cores and {cards}"


def this_machine(gpus: Sequence[AttachedGpu]) -> Machine:
    """Return the cores that this process may run on, and the given GPUs."""
    return Machine(tuple(sorted(os.sched_getaffinity(0))), tuple(gpus))
