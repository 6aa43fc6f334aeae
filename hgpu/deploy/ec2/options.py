"""What a user chooses of a deployment on EC2, beside the plan."""

import re
from dataclasses import dataclass

from hgpu.core.errors import InputError
from hgpu.deploy.ec2.state import Chosen
from hgpu.deploy.render.document import RenderOptions

_REGION = re.compile(r"[a-z]{2}(-[a-z]+){1,3}-[0-9]{1,2}")
_GROUP = re.compile(r"sg-[0-9a-f]{8,17}")
_SUBNET = re.compile(r"subnet-[0-9a-f]{8,17}")


@dataclass(frozen=True, slots=True)
class Waits:
    """How long to wait: for health in all, between two looks, and for what EC2 made to show up."""

    health_s: float = 1800.0
    poll_s: float = 15.0
    visible_s: float = 60.0

    @property
    def healthy(self) -> dict[str, object]:
        """Return botocore's configuration of a wait for health."""
        return self._waiter(self.health_s)

    @property
    def visible(self) -> dict[str, object]:
        """Return botocore's configuration of a wait for something to show up."""
        return self._waiter(self.visible_s)

    def _waiter(self, seconds: float) -> dict[str, object]:
        return {"Delay": self.poll_s, "MaxAttempts": max(1, round(seconds / self.poll_s))}


@dataclass(frozen=True, slots=True)
class Ec2Options:
    """Without security groups, machines have the network's default one, which nothing from outside reaches.

    `private_addresses` says that this hgpu runs inside the network, so that engines can be asked.
    """

    render: RenderOptions
    security_groups: tuple[str, ...] = ()
    subnet: str | None = None
    private_addresses: bool = False
    keep_on_failure: bool = False

    @property
    def chosen(self) -> Chosen:
        """What the state keeps of this, so that more machines can be launched alike."""
        render = self.render
        return Chosen(
            image=render.image,
            secret=render.secret,
            security_groups=list(self.security_groups),
            subnet=self.subnet,
        )

    def __post_init__(self) -> None:
        for group in self.security_groups:
            require_group(group)
        if self.subnet is not None:
            require_subnet(self.subnet)


def require(pattern: re.Pattern[str], noun: str, value: str, example: str) -> str:
    """Return a value that has the form of its kind, or raise InputError."""
    if not pattern.fullmatch(value):
        raise InputError(f"'{value}' is no {noun}", f"one looks like {example}", "correct it")
    return value


def require_region(region: str) -> str:
    """Return a region's name, or raise InputError: it becomes a part of the address that is called."""
    return require(_REGION, "region of AWS", region, "us-east-1")


def require_group(group: str) -> str:
    """Return a security group's id, or raise InputError."""
    return require(_GROUP, "security group", group, "sg-0123456789abcdef0")


def require_subnet(subnet: str) -> str:
    """Return a subnet's id, or raise InputError."""
    return require(_SUBNET, "subnet", subnet, "subnet-0123456789abcdef0")
