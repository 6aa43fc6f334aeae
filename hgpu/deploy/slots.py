"""From a plan and a machine to slots: which engine runs on which cores or GPUs."""

from dataclasses import dataclass

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import Infeasible
from hgpu.core.operating_point import OperatingPoint
from hgpu.deploy.modes import require_mixed
from hgpu.runtime.machine import Machine, Place


@dataclass(frozen=True, slots=True)
class Slot:
    """One engine and what it is bound to: CPU cores or GPU indices."""

    name: str
    pool: str
    point: OperatingPoint
    place: Place


def engine_slots(plan: PlanPayload, machine: Machine) -> tuple[Slot, ...]:
    """Return one slot an engine, with cores and GPUs that no two engines share.

    Pools are taken by name and cores and GPUs by number, so the same plan on the same machine
    gives the same slots. Raises Infeasible where the machine lacks what the plan needs.
    """
    slots: list[Slot] = []
    for row in sorted(plan.allocation, key=lambda row: row.pool):
        require_mixed(row)
        for _ in range(row.engines):
            place = machine.place(resolve_gpu(row.gpu), row.tp, [slot.place for slot in slots])
            if place is None:
                raise _too_small(plan, machine)
            slots.append(Slot(f"engine-{len(slots)}", row.pool, row.point, place))
    if not slots:
        raise Infeasible("the plan has no engines", "its allocation is empty", "plan for a rate above zero")
    return tuple(slots)


def _too_small(plan: PlanPayload, machine: Machine) -> Infeasible:
    needs = ", ".join(_need(row) for row in sorted(plan.allocation, key=lambda row: row.pool))
    return Infeasible(
        "the plan doesn't fit this machine",
        f"it needs {needs}; free here: {machine.describe()}",
        "plan with the GPU types that are attached here (`hgpu gpus`), or deploy to another target",
    )


def _need(row: AllocationRow) -> str:
    gpu = resolve_gpu(row.gpu)
    each = f"{gpu.cores * row.tp} CPU cores each" if gpu.is_cpu else f"{row.tp} × {gpu.name} each"
    return f"{row.engines} engines of pool '{row.pool}' with {each}"
