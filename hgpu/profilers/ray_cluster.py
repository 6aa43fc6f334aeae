"""A Ray cluster as its driver sees it: joined, asked what it has, and asked for an accelerator."""

import logging
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hgpu.core.errors import HgpuError, InputError, UnknownName
from hgpu.core.gpu import GpuType

PREFIX = "accelerator_type:"
KNOCK_S = 10.0

# Constants of `ray.util.accelerators.accelerators`, narrower names first; nodes find out the last by
# themselves.
RAY_NAMES = {
    "T4": ("T4",),
    "V100": ("V100",),
    "L4": ("L4",),
    "A10G": ("A10G",),
    "L40S": ("L40S",),
    "A100-40GB": ("A100-40G", "A100"),
    "A100-80GB": ("A100-80G", "A100"),
    "H100-PCIe": ("H100",),
    "H100-NVL": ("H100",),
    "H100-SXM": ("H100",),
    "H200": ("H200",),
    "B200": ("B200",),
    "RTX-PRO-6000": ("RTX-PRO-6000",),
}


@contextmanager
def joined(address: str) -> Iterator[None]:
    """Be a driver of the cluster at `address`, and leave it again.

    Raises InputError where ray isn't installed, or is another version than the cluster's, and
    HgpuError where no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--ray needs Ray, which isn't installed", str(error), "pip install 'hgpu[ray]'"
        ) from error
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        raise HgpuError(
            f"no Ray cluster answers at '{address}'",
            _first_line(error),
            "give the address that `ray start --head` printed, such as 10.0.0.1:6379",
        ) from error
    except RuntimeError as error:
        raise InputError(
            f"the Ray cluster at '{address}' can't be joined",
            " ".join(str(error).split()),
            "use the cluster's versions of Ray and Python here",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


def demand(gpu: GpuType, tp: int) -> dict[str, Any]:
    """Return what to ask Ray for: devices of an accelerator type, or CPUs.

    A type goes by the catalog's name or Ray's narrow one where nodes were started with such a
    resource, else by the name that nodes find out by themselves.
    """
    if gpu.is_cpu:
        return {"num_cpus": gpu.cores * tp}
    if gpu.name not in RAY_NAMES:
        raise UnknownName("GPU type of a Ray cluster", gpu.name, RAY_NAMES)
    names, there = (gpu.name, *RAY_NAMES[gpu.name]), accelerators()
    name = next((name for name in names if name in there), names[-1])
    return {"num_cpus": 1, "num_gpus": tp, "accelerator_type": name}


def accelerators() -> Counter[str]:
    """Return the devices that the cluster's living nodes have of each accelerator type."""
    found: Counter[str] = Counter()
    for resources in _living():
        for name in resources:
            if name.startswith(PREFIX):
                found[name.removeprefix(PREFIX)] += int(resources.get("GPU", 0))
    return found


def description() -> str:
    """Say what the cluster has, for error messages."""
    types = ", ".join(f"{name} ({count})" for name, count in sorted(accelerators().items()))
    cpus = [int(resources.get("CPU", 0)) for resources in _living()]
    return f"the cluster has {types or 'no accelerators'} and nodes of {_listed(cpus)} CPUs"


def _listed(counts: list[int]) -> str:
    return ", ".join(str(count) for count in sorted(set(counts), reverse=True)) or "no"


def _living() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
