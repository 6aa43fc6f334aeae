"""What `hgpu supervise` calls for a deployment on AWS."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hgpu.artifacts.resolve import resolve
from hgpu.commands.deploying import Plan, replanner
from hgpu.commands.solved_from import read_solved_from
from hgpu.core.errors import InputError
from hgpu.deploy.ec2.budget import Caps
from hgpu.deploy.ec2.driver import Ec2Driver
from hgpu.deploy.ec2.keep import AN_HOUR
from hgpu.deploy.ec2.ladder import Patience
from hgpu.deploy.state import Phase
from hgpu.report.output import note

EVERY_S = 10.0  # a spot machine has two minutes from its notice


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a deployment on AWS is kept; None takes the default."""

    root: Path
    name: str
    once: bool = False
    no_replan: bool = False
    every_s: float | None = None
    an_hour: int | None = None
    starting_s: float | None = None
    drain_s: float | None = None


def keep(asked: Keeping, driver: Ec2Driver) -> bool:
    """Keep a deployment until it is destroyed, or make one pass; tell whether it is as its plan says."""

    @cache
    def plans(digest: str) -> Plan:
        return resolve(asked.root, digest, "plan")

    replan = None if asked.no_replan else replanner(asked.root)
    keeper = driver.keeper(asked.root, asked.name, plans, caps_of, replan, note)
    given = {"starting_s": asked.starting_s, "drain_s": asked.drain_s}
    keeper.patience = Patience(**{key: value for key, value in given.items() if value is not None})
    keeper.an_hour = AN_HOUR if asked.an_hour is None else asked.an_hour
    if asked.once:
        return keeper.look().phase is Phase.READY
    every_s = EVERY_S if asked.every_s is None else asked.every_s
    keeper.run(lambda: time.sleep(every_s))  # EC2 has no event that reaches this process
    return True


def caps_of(plan: Plan) -> Caps:
    """Return the most machines of each offer, by name and region: as many as there are, and as the spec lets.

    Limits of other things (GPUs, markets, regions) aren't held against a replacement beside its predecessor.
    """
    found = read_solved_from(plan)
    if found is None:
        return {}
    spec, offers = found
    caps: dict[tuple[str, str], int] = {}
    for offer in offers:
        most = [spec.limits.get(name) for name in (offer.name, f"{offer.name}@{offer.region}")]
        known = [count for count in (offer.available, *most) if count is not None]
        if known:
            caps[offer.name, offer.region] = min(known)
    return caps


def refuse_aws_options(options: Mapping[str, object]) -> None:
    """Raise InputError for options that a local supervisor doesn't have."""
    names = [f"--{name}" for name, value in options.items() if value]
    if names:
        raise InputError(
            f"{', '.join(names)}: of a deployment on aws", "`local` has none", "drop it, or add --target aws"
        )
