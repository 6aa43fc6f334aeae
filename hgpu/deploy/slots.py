"""From a plan and a machine to slots: which engine runs on which cores or GPUs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.operating_point import OperatingPoint
from hgpu.deploy.modes import is_pair
from hgpu.deploy.state import Role, SlotState
from hgpu.runtime.machine import Machine, Place
from hgpu.runtime.ports import free_ports
from hgpu.runtime.vllm.folder_options import Side


@dataclass(frozen=True, slots=True)
class Slot:
    """One engine and what it is bound to: CPU cores or GPU indices; of a pair, also which side it is."""

    name: str
    pool: str
    point: OperatingPoint
    place: Place
    side: Side | None = None


def engine_slots(plan: PlanPayload, machine: Machine) -> tuple[Slot, ...]:
    """Return one slot an engine, two for a pair, with cores and GPUs that no two of them share.

    Pools are taken by name and cores and GPUs by number, so the same plan on the same machine
    gives the same slots. Raises Infeasible where the machine lacks what the plan needs, and InputError
    for a pair in a place that can't be shared out.
    """
    slots: list[Slot] = []
    count = 0
    for row in sorted(plan.allocation, key=lambda row: row.pool):
        pair = is_pair(row)
        for _ in range(row.engines):
            place = machine.place(resolve_gpu(row.gpu), row.tp, [slot.place for slot in slots])
            if place is None:
                raise _too_small(plan, machine)
            name = f"engine-{count}"
            slots += _pair(name, row, place) if pair else [Slot(name, row.pool, row.point, place)]
            count += 1
    if not slots:
        raise Infeasible("the plan has no engines", "its allocation is empty", "plan for a rate above zero")
    return tuple(slots)


def slot_states(slots: Sequence[Slot]) -> list[SlotState]:
    """Return the slots of a deployment, each with a free port.

    To the engines come a balancer for each pool that has several (for each side of several pairs), a router
    where there are several engines at all, and the supervisor.
    """
    counts = Counter((slot.pool, slot.side) for slot in slots)
    pools = sorted((pool for pool, engines in counts.items() if engines > 1), key=str)
    ports = iter(free_ports(len(slots) + 2 * len(pools) + 2))
    rows = [
        SlotState(
            slot=slot.name,
            role=Role.ENGINE,
            pool=slot.pool,
            side=slot.side,
            port=next(ports),
            cores=list(slot.place.cores),
            gpus=list(slot.place.gpus),
        )
        for slot in slots
    ]
    rows += [
        SlotState(
            slot=f"prefill-{pool}" if side is Side.PREFILL else f"pool-{pool}",
            role=Role.BALANCER,
            pool=pool,
            side=side,
            port=next(ports),
            metrics_port=next(ports),
        )
        for pool, side in pools
    ]
    if len(slots) > 1:
        rows.append(SlotState(slot="router", role=Role.ROUTER, port=next(ports), metrics_port=next(ports)))
    return [*rows, SlotState(slot="supervisor", role=Role.SUPERVISOR)]


def _pair(name: str, row: AllocationRow, place: Place) -> Iterator[Slot]:
    """Share one engine's cores out: half of them decode, and a core left over computes prompts."""
    if not place.cores:
        raise InputError(
            f"pool '{row.pool}' would run as pairs of engines on {row.gpu}",
            "two engines on one GPU have not been tried yet, so hgpu starts pairs on CPU cores only",
            "deploy without --two-engines, or plan again: older plans in mode 'pd' know no scheduler",
        )
    half = len(place.cores) // 2
    if half < row.tp:
        raise InputError(
            f"pool '{row.pool}' has {len(place.cores)} CPU cores for a pair of engines",
            f"each of the two needs {row.tp} of its own",
            "plan for a GPU type with more cores, or deploy without --two-engines",
        )
    for side, cores in ((Side.PREFILL, place.cores[half:]), (Side.DECODE, place.cores[:half])):
        yield Slot(f"{name}-{side}", row.pool, row.point, Place(cores), side)


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
