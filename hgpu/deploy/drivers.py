"""The deployment targets that hgpu knows. A new one is one file and one line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.core.errors import InputError, UnknownName
from hgpu.deploy.cluster.api import Access
from hgpu.deploy.cluster.driver import TARGET as KUBERNETES
from hgpu.deploy.cluster.driver import KubernetesDriver
from hgpu.deploy.driver import Driver, Watched
from hgpu.deploy.ec2.driver import Ec2Driver
from hgpu.deploy.local import LocalDriver

TARGETS: dict[str, Driver] = {"local": LocalDriver(), KUBERNETES: KubernetesDriver()}
AWS = "aws"  # deployed to otherwise: with a diff, a go-ahead, and other plans where there is no supply


@dataclass(frozen=True, slots=True)
class Place:
    """Where a user says that a target is: a cluster, by kubeconfig and namespace, or regions of a cloud."""

    context: str | None = None
    kubeconfig: Path | None = None
    namespace: str | None = None
    regions: tuple[str, ...] = ()

    @property
    def of_a_cluster(self) -> dict[str, object]:
        """What only a cluster has, by option."""
        return {"context": self.context, "kubeconfig": self.kubeconfig, "namespace": self.namespace}


def driver_of(target: str) -> Driver:
    """Return the driver of a target, or raise UnknownName."""
    if target not in TARGETS:
        raise UnknownName("deployment target", target, [*TARGETS, AWS])
    return TARGETS[target]


def driver_for(
    target: str, place: Place, rendering: Mapping[str, Any] | None = None, force_conflicts: bool = False
) -> Driver:
    """Return the driver of a target, for the cluster and with the options that a user gave."""
    if target == KUBERNETES:
        access = Access(place.context, place.kubeconfig)
        return KubernetesDriver(access, place.namespace or "default", dict(rendering or {}), force_conflicts)
    refuse_cluster(target, place, force_conflicts)
    return driver_of(target)


def watched(target: str, place: Place) -> Watched:
    """Return what watches and destroys on a target."""
    if target == AWS:
        refuse_cluster(target, place)
        return Ec2Driver(place.regions)
    if place.regions:
        raise InputError("--region: of a cloud", f"'{target}' has none", "drop it")
    return driver_for(target, place, {"namespace": place.namespace})


def refuse_cluster(target: str, place: Place, force_conflicts: bool = False) -> None:
    """Raise InputError for options of a cluster on a target that is none."""
    words = {**place.of_a_cluster, "force-conflicts": force_conflicts}
    names = [f"--{name}" for name, value in words.items() if value]
    if names:
        raise InputError(f"{', '.join(names)}: of a cluster", f"`{target}` has none", "drop it")
