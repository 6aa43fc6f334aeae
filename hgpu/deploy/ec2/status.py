"""A live look at a deployment on EC2: what its state says beside what EC2 and the engines say."""

from collections.abc import Sequence
from pathlib import Path

from hgpu.core.errors import InputError
from hgpu.deploy.driver import DeploymentStatus, SlotStatus
from hgpu.deploy.ec2.aim import Reach
from hgpu.deploy.ec2.clients import Clients, told
from hgpu.deploy.ec2.engines import Addresses
from hgpu.deploy.ec2.intent import strays
from hgpu.deploy.ec2.options import require_region
from hgpu.deploy.ec2.state import TARGET, Ec2State, MachineState, Step, read_state
from hgpu.deploy.ec2.world import Instance, World, look, passing
from hgpu.deploy.lock import worker
from hgpu.deploy.state import Phase, Role
from hgpu.runtime.health import is_healthy

_PHASES = {
    Step.PLANNED: Phase.PLANNED,
    Step.LAUNCHING: Phase.STARTING,
    Step.UP: Phase.READY,
    Step.LOST: Phase.DEGRADED,
    Step.LEAVING: Phase.DESTROYING,
    Step.TERMINATING: Phase.DESTROYING,
}
_WANTED = (Step.PLANNED, Step.LAUNCHING, Step.UP, Step.LOST)


def status_of(folder: Path, reach: Reach, regions: Sequence[str]) -> DeploymentStatus:
    """Return what state, EC2 and, inside the network, engines say of a deployment. Nothing is changed."""
    try:
        state = read_state(folder)
    except InputError as error:
        return _without_state(folder.name, error.what)
    if state is None:
        return _without_state(folder.name, "there is no state")
    where = sorted({*state.regions, *map(require_region, regions)})
    world = look(reach.clients, where, state.name)
    good = _passing(world, reach.clients)
    slots = tuple(_slot(machine, state, world, good, reach.addresses) for machine in state.machines)
    drift = _drift(state, world, good, slots)
    return DeploymentStatus(
        name=state.name,
        target=TARGET,
        plan_digest=state.plan_digest,
        phase=_phase(state, worker(folder) is not None, bool(drift)),
        front_url=None,
        slots=slots,
        drift=drift,
        updated_at=state.updated_at,
    )


def _without_state(name: str, why: str) -> DeploymentStatus:
    drift = (f"{why}; `hgpu destroy {name} --target aws --region REGION` finds what is of it by its tags",)
    return DeploymentStatus(name, TARGET, "", Phase.DEGRADED, None, (), drift, "")


def _passing(world: World, clients: Clients) -> set[str]:
    """Return the running machines that pass EC2's checks."""
    running = [found for found in world.instances if found.state == "running"]
    good: set[str] = set()
    with told():
        for region in sorted({found.region for found in running}):
            good |= passing(clients(region), [found.id for found in running if found.region == region])
    return good


def _slot(
    machine: MachineState, state: Ec2State, world: World, good: set[str], addresses: Addresses
) -> SlotStatus:
    found = world.instance(machine.instance_id)
    url = addresses(found.private_ip, 1)[0] if found is not None and found.private_ip else ""
    asked = state.private_addresses and bool(url) and machine.step is Step.UP
    return SlotStatus(
        slot=machine.slot,
        role=Role.ENGINE,
        pool=machine.pool,
        phase=_PHASES[machine.step],
        pid=None,
        url=url,
        alive=found is not None and found.id in good,
        healthy=is_healthy(url) if asked else None,
        log="",
        where=f"{machine.instance_id or '-'} {machine.offer} {machine.region}",
    )


def _drift(state: Ec2State, world: World, good: set[str], slots: Sequence[SlotStatus]) -> tuple[str, ...]:
    """Say where EC2 differs from what the state says."""
    said = [line for m in state.machines if (line := _strays_from(m, world.instance(m.instance_id), good))]
    said += [
        f"{ident} has the deployment's tag, and the state doesn't know it" for ident in strays(state, world)
    ]
    said += [
        f"{slot.slot} passes EC2's checks, and its engine isn't healthy"
        for slot in slots
        if slot.healthy is False
    ]
    there = {found.id for found in world.templates}
    known = {row.id for row in state.templates if row.id}
    said += [
        f"the launch template {row.name} is gone" for row in state.templates if row.id and row.id not in there
    ]
    said += [
        f"the launch template {found.name} is left over" for found in world.templates if found.id not in known
    ]
    return tuple(said)


def _strays_from(machine: MachineState, found: Instance | None, good: set[str]) -> str:
    """Say how a machine differs from its record; nothing where it doesn't."""
    name = f"{machine.slot} ({machine.instance_id or 'never launched'})"
    if machine.cordon is not None and machine.step is Step.LEAVING:
        return f"{name} is cordoned: {machine.cordon.why}"
    if machine.step not in _WANTED:
        return f"{name} should be gone, and is {found.state}" if found is not None and found.living else ""
    if found is None:
        return f"{name} isn't there"
    if not found.living:
        return f"{name} is {found.state}: {found.reason or 'EC2 gives no reason'}"
    if found.type != machine.instance_type:
        return f"{name} is a {found.type}, not a {machine.instance_type}"
    if found.id not in good:
        return f"{name} is {found.state}, and doesn't pass EC2's checks"
    return ""


def _phase(state: Ec2State, in_hand: bool, drifted: bool) -> Phase:
    """A ready deployment that drifted is degraded; so is an unfinished one that nobody works on."""
    if state.phase is Phase.READY:
        return Phase.DEGRADED if drifted else Phase.READY
    if state.phase is Phase.DESTROYED:
        return Phase.DESTROYING if drifted else Phase.DESTROYED
    return state.phase if in_hand else Phase.DEGRADED
