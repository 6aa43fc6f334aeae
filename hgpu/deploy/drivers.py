"""The deployment targets that hgpu knows. A new one is one file and one line here."""

from hgpu.core.errors import UnknownName
from hgpu.deploy.driver import Driver
from hgpu.deploy.local import LocalDriver

TARGETS: dict[str, Driver] = {"local": LocalDriver()}


def driver_of(target: str) -> Driver:
    """Return the driver of a target, or raise UnknownName."""
    if target not in TARGETS:
        raise UnknownName("deployment target", target, TARGETS)
    return TARGETS[target]
