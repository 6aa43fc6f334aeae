"""Taking a deployment away by its state and by its tags, and the proof that nothing is left."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hgpu.core.errors import HgpuError
from hgpu.deploy.ec2.clients import Clients, told
from hgpu.deploy.ec2.options import Waits
from hgpu.deploy.ec2.state import Ec2State, Step, write_state
from hgpu.deploy.ec2.templates import deleted, existing
from hgpu.deploy.ec2.terminate import terminated, terminated_ids
from hgpu.deploy.ec2.world import PRESENT, look, volumes_of
from hgpu.deploy.state import Phase


def take_away(folder: Path, state: Ec2State, clients: Clients, waits: Waits) -> int:
    """Terminate, delete and prove; return how many machines had to be terminated.

    Raises HgpuError naming what is left; the same call again goes on from there.
    """
    going = [
        m.model_copy(update={"step": Step.TERMINATING}) for m in state.machines if m.step is not Step.PLANNED
    ]
    state = write_state(
        folder, state.model_copy(update={"phase": Phase.DESTROYING, "machines": going, "closed": []})
    )
    killed = set(terminated(going, state.name, clients, waits))
    world = look(clients, state.regions, state.name)
    tagged = {found.id: found.region for found in world.instances if found.state in PRESENT}
    terminated_ids(tagged, clients, waits)
    for region in state.regions:
        deleted(existing(state, region, clients(region)), clients)
        _drop_volumes(clients, region, state.name, waits)
    prove_gone(clients, state.regions, state.name)
    empty = {"phase": Phase.DESTROYED, "machines": [], "templates": []}
    write_state(folder, state.model_copy(update=empty))
    return len(killed | set(tagged))


def prove_gone(clients: Clients, regions: Sequence[str], name: str) -> None:
    """Describe everything that carries the deployment's tag; raise HgpuError where anything does."""
    world = look(clients, regions, name)
    left = [found.id for found in world.instances if found.state in PRESENT]
    left += [found.id for found in world.templates]
    with told():
        for region in regions:
            left += volumes_of(clients(region), name)
    if left:
        raise HgpuError(
            f"deployment '{name}' is not gone", f"these carry its tag: {', '.join(left)}", "destroy it again"
        )


def _drop_volumes(clients: Clients, region: str, name: str, waits: Waits) -> None:
    """Wait for the disks, which go with their machines; delete one that was detached by hand."""
    from botocore.exceptions import WaiterError

    client = clients(region)
    with told():
        for ident, state in sorted(volumes_of(client, name).items()):
            if state == "available":
                client.delete_volume(VolumeId=ident)
            # One by one: the waiter ends as soon as one of several is gone.
            with suppress(WaiterError):  # what is left is told by the proof
                client.get_waiter("volume_deleted").wait(VolumeIds=[ident], WaiterConfig=waits.healthy)
