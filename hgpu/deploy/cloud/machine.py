"""The machine of a job: launched under its token, found by its tags, and taken away."""

from datetime import datetime
from typing import Any

from hgpu.core.errors import HgpuError, Infeasible
from hgpu.core.model import ModelSpec
from hgpu.deploy.cloud.job import CloudJob
from hgpu.deploy.cloud.script import user_data
from hgpu.deploy.cloud.state import JobState, client_token
from hgpu.deploy.cloud.tags import deadline_of, job_tags, of_any_job, of_attempt, of_job
from hgpu.deploy.ec2.capacity import BARRED, FULL
from hgpu.deploy.ec2.clients import Clients, code_of, message_of, told
from hgpu.deploy.ec2.options import Waits
from hgpu.deploy.ec2.sight import described
from hgpu.deploy.ec2.terminate import terminated_ids
from hgpu.deploy.ec2.world import PRESENT, Instance, instance_of, instances_of
from hgpu.deploy.render.aws import IMAGE_ID, METADATA, disk


def launch(job: CloudJob, state: JobState, client: Any) -> Instance | None:
    """Call RunInstances; None where the token was used with other parameters.

    Without a launch template: one machine needs none, and it would be one more thing to take away.
    Raises Infeasible where there is no supply.
    """
    from botocore.exceptions import ClientError

    with told():
        try:
            answer = client.run_instances(
                **request(job, state), MinCount=1, MaxCount=1, ClientToken=client_token(state)
            )
        except ClientError as error:
            if code_of(error) == "IdempotentParameterMismatch":
                return None
            if code_of(error) in (*FULL, *BARRED):
                raise Infeasible(
                    f"{job.machine.instance_type} can't be had in {job.machine.region}",
                    f"{code_of(error)}: {message_of(error)}",
                    "try again later or in another --region, or have the account's quota raised",
                ) from error
            raise
    return instance_of(answer["Instances"][0], job.machine.region)


def request(job: CloudJob, state: JobState) -> dict[str, Any]:
    """Return the parameters of RunInstances: IMDSv2 only, an encrypted disk, no secret, and its own end."""
    options, tags = job.options, job_tags(job, state)
    asked: dict[str, Any] = {
        "ImageId": IMAGE_ID,
        "InstanceType": job.machine.instance_type,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "IamInstanceProfile": {"Name": options.instance_profile},
        "MetadataOptions": METADATA,
        "BlockDeviceMappings": [disk(_weight_bytes(job.model, job.settings.load_format))],
        "UserData": user_data(job, state),
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }
    if options.security_groups:
        asked["SecurityGroupIds"] = list(options.security_groups)
    if options.subnet is not None:
        asked["SubnetId"] = options.subnet
    return asked


def seen(state: JobState, client: Any) -> Instance | None:
    """Return the machine of the present attempt as EC2 lists it, rather one that lives."""
    with told():
        found = instances_of(client, state.region, of_attempt(state))
    return next(iter(sorted(found, key=lambda instance: not instance.living)), None)


def take_away(state: JobState, clients: Clients, waits: Waits) -> int:
    """Terminate all machines of a state, and prove that none is left; return how many there were.

    A machine of which EC2 gave no id, or that it doesn't list yet, is waited for. Raises HgpuError naming
    what is left.
    """
    client = clients(state.region)
    ids = [{"Name": "instance-id", "Values": [state.instance_id]}] if state.instance_id else of_attempt(state)
    mine = described(client, state.region, list(ids), waits)
    with told():
        tagged = instances_of(client, state.region, of_job(state))
    left = {one.id for one in [*tagged, *([mine] if mine else [])] if one.state in PRESENT}
    terminated_ids(dict.fromkeys(left, state.region), clients, waits)
    with told():
        still = [one.id for one in instances_of(client, state.region, of_job(state)) if one.state in PRESENT]
    if still:
        raise HgpuError(
            f"machines of {state.name} are left", ", ".join(still), "the same command again takes them away"
        )
    return len(left)


def sweep(region: str, clients: Clients, waits: Waits, now: datetime) -> tuple[list[str], list[str]]:
    """Terminate every machine in a region that profiles past its deadline, whosever it is.

    Returns those that were terminated, and those whose deadline can't be read and that were left alone.
    """
    with told():
        living = [one for one in instances_of(clients(region), region, of_any_job()) if one.living]
    due = {one.id: deadline_of(one.tags) for one in living}
    late = [ident for ident, moment in due.items() if moment is not None and moment < now]
    terminated_ids(dict.fromkeys(late, region), clients, waits)
    return late, [ident for ident, moment in due.items() if moment is None]


def _weight_bytes(model: ModelSpec, load_format: str) -> float:
    return 0 if load_format == "dummy" else model.weight_bytes
