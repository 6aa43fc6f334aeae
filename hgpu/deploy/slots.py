"""From a plan and a machine to slots: which engine runs on which cores or GPUs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import Infeasible
from hgpu.core.operating_point import OperatingPoint
from hgpu.deploy.modes import require_mixed
from hgpu.deploy.state import Role, SlotState
from hgpu.runtime.machine import Machine, Place
from hgpu.runtime.ports import free_ports


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


def slot_states(slots: Sequence[Slot]) -> list[SlotState]:
    """Return the slots of a deployment, each with a free port.

    To the engines come a balancer for each pool that has several, a router where there are several engines
    at all, and the supervisor.
    """
    counts = Counter(slot.pool for slot in slots)
    pools = sorted(pool for pool, engines in counts.items() if engines > 1)
    ports = iter(free_ports(len(slots) + 2 * len(pools) + 2))
    rows = [
        SlotState(
            slot=slot.name,
            role=Role.ENGINE,
            pool=slot.pool,
            port=next(ports),
            cores=list(slot.place.cores),
            gpus=list(slot.place.gpus),
        )
        for slot in slots
    ]
    rows += [
        SlotState(
            slot=f"pool-{pool}", role=Role.BALANCER, pool=pool, port=next(ports), metrics_port=next(ports)
        )
        for pool in pools
    ]
    if len(slots) > 1:
        rows.append(SlotState(slot="router", role=Role.ROUTER, port=next(ports), metrics_port=next(ports)))
    return [*rows, SlotState(slot="supervisor", role=Role.SUPERVISOR)]


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
