"""A live look at a deployment on this machine."""

from pathlib import Path

from hgpu.core.errors import InputError
from hgpu.deploy.driver import DeploymentStatus, SlotStatus
from hgpu.deploy.lock import worker
from hgpu.deploy.refresh import View, refreshed
from hgpu.deploy.state import NO_PORT, Phase, SlotState, State, log_path, read_state
from hgpu.runtime.health import is_healthy
from hgpu.runtime.ports import local_url
from hgpu.runtime.tags import tagged


def status_of(folder: Path) -> DeploymentStatus:
    """Return what state, processes and health checks say of the deployment kept in `folder`."""
    try:
        state = read_state(folder)
    except InputError as error:
        return _without_state(folder, error.what)
    if state is None:
        return _without_state(folder, "there is no state")
    view = refreshed(state, folder)
    slots = tuple(_slot_status(slot, folder) for slot in view.state.slots)
    drift = _drift(state, view, slots)
    return DeploymentStatus(
        name=state.name,
        target=state.target,
        plan_digest=state.plan_digest,
        phase=_phase(state, worker(folder) is not None, bool(drift)),
        front_url=state.front_url,
        slots=slots,
        drift=drift,
        updated_at=state.updated_at,
    )


def _without_state(folder: Path, why: str) -> DeploymentStatus:
    running = len(tagged(folder.name, folder))
    drift = (f"{why}; {running} of its processes run; `hgpu destroy {folder.name}` finds them by their tags",)
    return DeploymentStatus(folder.name, "local", "", Phase.DEGRADED, None, (), drift, "")


def _slot_status(slot: SlotState, folder: Path) -> SlotStatus:
    alive = slot.pid is not None
    url = "" if slot.port == NO_PORT else local_url(slot.port)
    return SlotStatus(
        slot=slot.slot,
        role=slot.role,
        pool=slot.pool,
        phase=slot.phase,
        pid=slot.pid,
        url=url,
        alive=alive,
        healthy=alive and (not url or is_healthy(url)),
        log=str(log_path(folder, slot.slot)),
    )


def _drift(state: State, view: View, slots: tuple[SlotStatus, ...]) -> tuple[str, ...]:
    """Say where the world differs from what the state says."""
    found = [f"{name} runs as a process that the state doesn't know" for name in view.adopted]
    if view.strays:
        found.append(f"{len(view.strays)} processes are left over from slots that don't run")
    for slot in slots if state.phase is not Phase.DESTROYED else ():
        if not slot.alive:
            found.append(f"{slot.slot} doesn't run")
        elif not slot.healthy:
            found.append(f"{slot.slot} runs but isn't healthy")
    return tuple(found)


def _phase(state: State, in_hand: bool, drifted: bool) -> Phase:
    """A ready deployment that drifted is degraded; so is an unfinished one that nobody works on."""
    if state.phase is Phase.READY:
        return Phase.DEGRADED if drifted else Phase.READY
    if state.phase is Phase.DESTROYED:
        return Phase.DESTROYING if drifted else Phase.DESTROYED
    return state.phase if in_hand else Phase.DEGRADED
