"""One machine: RunInstances under its token, so that a repeated call can't start a second one."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from hgpu.core.errors import HgpuError
from hgpu.deploy.ec2.capacity import OfferClosed, closed_by
from hgpu.deploy.ec2.clients import code_of, is_final, told
from hgpu.deploy.ec2.state import Ec2State, MachineState, Step, client_token
from hgpu.deploy.ec2.tags import machine_tags
from hgpu.deploy.ec2.world import Instance, instance_of

TRIES = 3
Save = Callable[[MachineState], None]


def launched(
    machine: MachineState, state: Ec2State, subnet: str | None, client: Any, save: Save, now: datetime
) -> MachineState:
    """Launch a machine and return its record; `save` keeps the intent before each call, and the id after.

    A token that EC2 knows from a machine that is gone, or with other parameters, is spent: the next
    attempt has another. Raises OfferClosed where there is no supply.
    """
    for _ in range(TRIES):
        machine = machine.model_copy(update={"step": Step.LAUNCHING})
        save(machine)
        try:
            found = _run(machine, state, subnet, client, now)
        except HgpuError as error:
            if isinstance(error, OfferClosed) or is_final(error.__cause__):  # nothing was launched
                save(machine.model_copy(update={"step": Step.PLANNED, "attempt": machine.attempt + 1}))
            raise
        if found is not None and found.living:
            machine = machine.model_copy(update={"instance_id": found.id})
            save(machine)
            return machine
        machine = machine.model_copy(update={"attempt": machine.attempt + 1})
    raise HgpuError(
        f"{machine.slot} can't be launched",
        f"EC2 knows its last {TRIES} tokens from machines that are gone, or from other requests",
        "deploy again",
    )


def _run(
    machine: MachineState, state: Ec2State, subnet: str | None, client: Any, now: datetime
) -> Instance | None:
    """Call RunInstances; None where the token was used with other parameters."""
    from botocore.exceptions import ClientError

    tags = machine_tags(state, machine)
    where = {"SubnetId": subnet} if subnet else {}
    with told():
        try:
            answer = client.run_instances(
                LaunchTemplate={"LaunchTemplateName": machine.template, "Version": "1"},
                MinCount=1,
                MaxCount=1,
                ClientToken=client_token(state, machine),
                TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
                **where,
            )
        except ClientError as error:
            if code_of(error) == "IdempotentParameterMismatch":
                return None
            closed = closed_by(error, machine, now)
            if closed is not None:
                raise OfferClosed(closed) from error
            raise
    return instance_of(answer["Instances"][0], machine.region)
