"""The deployment targets that hgpu knows. A new one is one file and one line here."""

from collections.abc import Callable, Sequence

from hgpu.core.errors import InputError, UnknownName
from hgpu.deploy.driver import Driver, Watched
from hgpu.deploy.ec2.driver import Ec2Driver
from hgpu.deploy.local import LocalDriver

TARGETS: dict[str, Driver] = {"local": LocalDriver()}
# Targets that are deployed to otherwise than by starting processes, from the regions to look into.
CLOUDS: dict[str, Callable[[tuple[str, ...]], Watched]] = {"aws": Ec2Driver}


def driver_of(target: str) -> Driver:
    """Return the driver of a target that runs processes, or raise UnknownName."""
    if target not in TARGETS:
        raise UnknownName("deployment target", target, {**TARGETS, **CLOUDS})
    return TARGETS[target]


def watched(target: str, regions: Sequence[str] = ()) -> Watched:
    """Return what watches and destroys on a target; `regions` are of a cloud."""
    if target in CLOUDS:
        return CLOUDS[target](tuple(regions))
    if regions:
        raise InputError("--region: of a cloud", f"'{target}' has none", "drop it")
    return driver_of(target)
