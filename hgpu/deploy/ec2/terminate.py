"""Taking machines away, and waiting until they are gone."""

from collections.abc import Mapping, Sequence

from hgpu.core.errors import HgpuError
from hgpu.deploy.ec2.clients import Clients, told
from hgpu.deploy.ec2.options import Waits
from hgpu.deploy.ec2.sight import sighted, wait_for
from hgpu.deploy.ec2.state import MachineState
from hgpu.deploy.ec2.world import Instance, instances_of

ROUNDS = 3  # EC2 may show a machine as it was before: then it is looked at, and terminated, again


def terminated(
    machines: Sequence[MachineState], deployment: str, clients: Clients, waits: Waits
) -> dict[str, str]:
    """Terminate recorded machines; a launch without an answer is looked up by its tags first.

    Returns the region of each that had to be terminated, by id.
    """
    listed = {found.id: found for found in _listed(machines, clients)}
    found = {
        instance.id: instance.region
        for machine in machines
        if (instance := listed.get(machine.instance_id or "") or sighted(machine, deployment, clients, waits))
        and instance.state != "terminated"
    }
    terminated_ids(found, clients, waits)
    return found


def terminated_ids(regions: Mapping[str, str], clients: Clients, waits: Waits) -> None:
    """Terminate machines, given as region by id, and wait until EC2 says that they are terminated.

    Raises HgpuError naming those that are not.
    """
    left: list[str] = []
    for region in sorted(set(regions.values())):
        client = clients(region)
        ids = sorted(ident for ident, where in regions.items() if where == region)
        for _ in range(ROUNDS):
            if not ids:
                break
            with told():
                client.terminate_instances(InstanceIds=ids)
            wait_for(client, "instance_terminated", ids, waits.healthy)
            with told():
                rows = instances_of(client, region, [{"Name": "instance-id", "Values": ids}])
            ids = [row.id for row in rows if row.state != "terminated"]
        left += ids
    if left:
        raise HgpuError(
            f"machines {', '.join(left)} are not terminated",
            "EC2 took the call, and still shows them",
            "look at them in the console (termination protection?), then run the same command again",
        )


def _listed(machines: Sequence[MachineState], clients: Clients) -> list[Instance]:
    """Return those that EC2 lists by their ids, in one call a region."""
    found: list[Instance] = []
    with told():
        for region in sorted({machine.region for machine in machines}):
            ids = [m.instance_id for m in machines if m.region == region and m.instance_id]
            if ids:
                found += instances_of(clients(region), region, [{"Name": "instance-id", "Values": ids}])
    return found
