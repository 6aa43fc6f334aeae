"""Taking machines away, and waiting until they are gone."""

from collections.abc import Mapping, Sequence

from hgpu.core.errors import HgpuError
from hgpu.deploy.ec2.clients import Clients, told
from hgpu.deploy.ec2.options import Waits
from hgpu.deploy.ec2.sight import sighted, wait_for
from hgpu.deploy.ec2.state import MachineState
from hgpu.deploy.ec2.world import instances_of

ROUNDS = 3  # EC2 may show a machine as it was before: then it is looked at, and terminated, again


def terminated(
    machines: Sequence[MachineState], deployment: str, clients: Clients, waits: Waits
) -> dict[str, str]:
    """Terminate recorded machines; a launch without an answer is looked up by its token first.

    Returns the region of each that had to be terminated, by id.
    """
    found = {
        instance.id: instance.region
        for machine in machines
        if (instance := sighted(machine, deployment, clients, waits)) and instance.state != "terminated"
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
