"""The deployment targets that hgpu knows. A new one is one file and one line here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hgpu.core.errors import InputError, UnknownName
from hgpu.deploy.cluster.api import Access
from hgpu.deploy.cluster.driver import TARGET as KUBERNETES
from hgpu.deploy.cluster.driver import KubernetesDriver
from hgpu.deploy.driver import Driver
from hgpu.deploy.local import LocalDriver

TARGETS: dict[str, Driver] = {"local": LocalDriver(), KUBERNETES: KubernetesDriver()}


def driver_of(target: str) -> Driver:
    """Return the driver of a target, or raise UnknownName."""
    if target not in TARGETS:
        raise UnknownName("deployment target", target, TARGETS)
    return TARGETS[target]


def driver_for(
    target: str,
    context: str | None,
    kubeconfig: Path | None,
    rendering: Mapping[str, Any] | None = None,
    force_conflicts: bool = False,
) -> Driver:
    """Return the driver of a target, for the cluster and with the options that a user gave."""
    given = dict(rendering or {})
    if target == KUBERNETES:
        namespace = given.get("namespace") or "default"
        return KubernetesDriver(Access(context, kubeconfig), namespace, given, force_conflicts)
    driver = driver_of(target)
    words = {"context": context, "kubeconfig": kubeconfig, "force-conflicts": force_conflicts}
    names = [f"--{name}" for name, value in {**words, **given}.items() if value]
    if names:
        raise InputError(f"{', '.join(names)}: of a cluster", f"`{target}` has none", "drop it")
    return driver
