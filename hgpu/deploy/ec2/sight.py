"""Seeing what EC2 doesn't list yet: a machine that was just launched may be missing from describe calls."""

from collections.abc import Iterable, Mapping
from typing import Any

from hgpu.deploy.ec2.clients import Clients, refusal, told
from hgpu.deploy.ec2.options import Waits
from hgpu.deploy.ec2.state import Ec2State, MachineState, Step
from hgpu.deploy.ec2.tags import of_machine
from hgpu.deploy.ec2.world import Instance, World, instances_of


def hidden(state: Ec2State, world: World, clients: Clients, waits: Waits) -> set[str]:
    """Return the recorded machines that exist, though EC2 doesn't list them by tag yet."""
    steps = (Step.LAUNCHING, Step.UP, Step.LEAVING)
    unlisted = [m for m in state.at(*steps) if m.instance_id and world.instance(m.instance_id) is None]
    return {m.instance_id for m in unlisted if m.instance_id and _by_id(clients, m, waits)}


def sighted(machine: MachineState, deployment: str, clients: Clients, waits: Waits) -> Instance | None:
    """Return the machine of a record, by its id, or of a launch without an answer, by its tags.

    None where it doesn't show up for `waits.visible_s`: then the launch never reached EC2.
    """
    if machine.instance_id:
        return _by_id(clients, machine, waits)
    return described(clients(machine.region), machine.region, of_machine(deployment, machine), waits)


def wait_for(client: Any, waiter: str, ids: Iterable[str], config: Mapping[str, object]) -> bool:
    """Wait with one of botocore's waiters for machines; tell whether they came to be so.

    Raises HgpuError where EC2 refuses to tell.
    """
    from botocore.exceptions import WaiterError

    ids = sorted(ids)
    if not ids:
        return True
    with told():
        try:
            client.get_waiter(waiter).wait(InstanceIds=ids, WaiterConfig=dict(config))
            return True
        except WaiterError as error:
            _raise_refusal(waiter, error)
            return False


def _by_id(clients: Clients, machine: MachineState, waits: Waits) -> Instance | None:
    ident = {"Name": "instance-id", "Values": [machine.instance_id or ""]}
    return described(clients(machine.region), machine.region, [ident], waits)


def described(client: Any, region: str, filters: list[dict[str, Any]], waits: Waits) -> Instance | None:
    """Wait until EC2 describes a machine that the filters let through."""
    from botocore.exceptions import WaiterError

    with told():
        try:
            client.get_waiter("instance_exists").wait(Filters=filters, WaiterConfig=waits.visible)
        except WaiterError as error:
            _raise_refusal("instance_exists", error)
            return None
        return next(iter(instances_of(client, region, filters)), None)


def _raise_refusal(waiter: str, error: Any) -> None:
    """Waiters end alike where time is over and where a call fails: tell the second."""
    said = error.last_response.get("Error", {}) if isinstance(error.last_response, dict) else {}
    if said and said.get("Code") != "InvalidInstanceID.NotFound":
        raise refusal(f"to say {waiter}", said.get("Code", ""), said.get("Message", "")) from error
