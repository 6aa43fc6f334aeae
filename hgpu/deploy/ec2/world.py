"""What EC2 says there is of a deployment: machines, launch templates and volumes, by tag."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hgpu.deploy.ec2.clients import Clients, code_of, told
from hgpu.deploy.ec2.tags import LINEAGE, of_deployment, read_tags

LIVING = ("pending", "running", "stopping", "stopped")
PRESENT = (*LIVING, "shutting-down")  # a machine that isn't terminated yet still holds its disk


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine as EC2 describes it; `reason` is why its state changed last."""

    id: str
    region: str
    type: str
    state: str
    tags: Mapping[str, str]
    private_ip: str
    reason: str

    @property
    def living(self) -> bool:
        """Whether it runs, or can come to run again."""
        return self.state in LIVING


@dataclass(frozen=True, slots=True)
class Template:
    """A launch template as EC2 describes it."""

    id: str
    name: str
    region: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class World:
    """All that carries a deployment's tag, also machines that are terminated and still described."""

    instances: tuple[Instance, ...]
    templates: tuple[Template, ...]

    def foreign(self, lineage: str) -> list[str]:
        """Return the living machines that another state launched."""
        return [i.id for i in self.instances if i.living and i.tags.get(LINEAGE, lineage) != lineage]

    def instance(self, instance_id: str | None) -> Instance | None:
        """Return a machine by its id."""
        return next((found for found in self.instances if found.id == instance_id), None)


def look(clients: Clients, regions: Sequence[str], name: str) -> World:
    """Describe a deployment in some regions. Raises HgpuError where AWS refuses."""
    instances: list[Instance] = []
    templates: list[Template] = []
    with told():
        for region in regions:
            client = clients(region)
            instances += instances_of(client, region, of_deployment(name))
            templates += templates_of(client, region, Filters=of_deployment(name))
    return World(tuple(instances), tuple(templates))


def instances_of(client: Any, region: str, filters: Sequence[Mapping[str, object]]) -> list[Instance]:
    """Return the machines that filters let through, by id."""
    pages = client.get_paginator("describe_instances").paginate(Filters=list(filters))
    rows = [row for page in pages for r in page["Reservations"] for row in r["Instances"]]
    return sorted((instance_of(row, region) for row in rows), key=lambda found: found.id)


def instance_of(row: Mapping[str, Any], region: str) -> Instance:
    """Return a machine from EC2's description of it."""
    reason = row.get("StateReason", {}).get("Message") or row.get("StateTransitionReason") or ""
    return Instance(
        id=row["InstanceId"],
        region=region,
        type=row.get("InstanceType", ""),
        state=row["State"]["Name"],
        tags=read_tags(row.get("Tags", [])),
        private_ip=row.get("PrivateIpAddress", ""),
        reason=reason,
    )


def templates_of(client: Any, region: str, **asked: Any) -> list[Template]:
    """Return the launch templates of a filter or of names; none where no template has one of the names."""
    from botocore.exceptions import ClientError

    try:
        pages = client.get_paginator("describe_launch_templates").paginate(**asked)
        rows = [row for page in pages for row in page["LaunchTemplates"]]
    except ClientError as error:
        if code_of(error) == "InvalidLaunchTemplateName.NotFoundException":
            return []
        raise
    return [
        Template(row["LaunchTemplateId"], row["LaunchTemplateName"], region, read_tags(row.get("Tags", [])))
        for row in rows
    ]


def volumes_of(client: Any, name: str) -> dict[str, str]:
    """Return the states of a deployment's volumes by id."""
    pages = client.get_paginator("describe_volumes").paginate(Filters=of_deployment(name))
    return {row["VolumeId"]: row["State"] for page in pages for row in page["Volumes"]}


def passing(client: Any, instance_ids: Sequence[str]) -> set[str]:
    """Return which of some running machines pass both of EC2's checks."""
    if not instance_ids:
        return set()
    pages = client.get_paginator("describe_instance_status").paginate(InstanceIds=list(instance_ids))
    return set(_ok(page for page in pages))


def _ok(pages: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    for page in pages:
        for row in page["InstanceStatuses"]:
            if row["InstanceStatus"]["Status"] == row["SystemStatus"]["Status"] == "ok":
                yield str(row["InstanceId"])
