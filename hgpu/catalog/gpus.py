"""GPU types: the catalog's figures, the names that lead to them, and the cards attached here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import NotRequired, TypedDict, cast

import yaml

from hgpu.core.errors import HgpuError, InputError, UnknownName
from hgpu.core.gpu import DType, GpuType

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CPU_FAMILY = re.compile(r"cpu([1-9][0-9]*)cores?")
_GIB = 2**30
_GIGA = 1e9
_TERA = 1e12


class _Entry(TypedDict):
    """One entry of `data/gpus.yaml`, in the units that its header explains."""

    name: str
    vendor: str
    memory_gib: float
    memory_bandwidth_gb_s: float
    socket_bandwidth_gb_s: NotRequired[float]
    tflops: dict[str, float]
    sm_count: int
    compute_capability: NotRequired[str]
    cores: NotRequired[int]
    host_link_gb_s: float
    peer_link_gb_s: float
    aliases: list[str]
    source: str


@dataclass(frozen=True, slots=True)
class AttachedGpu:
    """A card that NVML sees in this machine; `gpu` is None where the catalog doesn't hold it."""

    index: int
    gpu: str | None
    nvml_name: str
    uuid: str
    memory_bytes: int
    driver_version: str


def gpu_types() -> dict[str, GpuType]:
    """Return the catalog's GPU types by name, in its order (oldest generation first, CPU last)."""
    return dict(_types())


def resolve_gpu(name: str) -> GpuType:
    """Return the GPU type that a name means: its own, an alias, an NVML name, or `cpu-<N>core`.

    Case, spaces, `-` and `_` don't matter. Raises UnknownName with the nearest names.
    """
    key = _key(name)
    found = _names().get(key)
    if found is not None:
        return _types()[found]
    family = _CPU_FAMILY.fullmatch(key)
    if family is not None:
        return _cpu_cores(int(family[1]))
    raise UnknownName("GPU type", name, [*_types(), "cpu-1core", "cpu-2core"])


def nvml_names(name: str) -> list[str]:
    """Return what NVML, and so `nvidia-smi`, may call a type."""
    known = next(entry for entry in _entries() if entry["name"] == resolve_gpu(name).name)
    return [alias for alias in known["aliases"] if alias.startswith(("NVIDIA ", "Tesla "))]


def product_labels(name: str) -> list[str]:
    """Return what a type may be called in `nvidia.com/gpu.product`: NVML's names, with `-` for spaces."""
    return [alias.replace(" ", "-") for alias in nvml_names(name)]


def attached_gpus() -> list[AttachedGpu]:
    """Return this machine's NVIDIA cards in NVML's order; empty where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED):
            return []
        raise HgpuError(
            "the NVIDIA driver doesn't answer", str(error), "check that nvidia-smi works"
        ) from error
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        return [_attached(index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _attached(index: int, driver_version: str) -> AttachedGpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    nvml_name = pynvml.nvmlDeviceGetName(handle)
    return AttachedGpu(
        index=index,
        gpu=_names().get(_key(nvml_name)),
        nvml_name=nvml_name,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        driver_version=driver_version,
    )


def _cpu_cores(cores: int) -> GpuType:
    """Scale the one-core entry: everything by N, bandwidths up to what the socket's channels give."""
    core = _types()["CPU"]
    socket = _socket_bandwidth_bytes_per_s()
    return replace(
        core,
        name=f"cpu-{cores}core",
        memory_bytes=core.memory_bytes * cores,
        memory_bandwidth_bytes_per_s=min(core.memory_bandwidth_bytes_per_s * cores, socket),
        flops_per_s=MappingProxyType({dtype: rate * cores for dtype, rate in core.flops_per_s.items()}),
        sm_count=core.sm_count * cores,
        host_link_bytes_per_s=min(core.host_link_bytes_per_s * cores, socket),
        peer_link_bytes_per_s=min(core.peer_link_bytes_per_s * cores, socket),
        cores=cores,
    )


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


@cache
def _entries() -> tuple[_Entry, ...]:
    text = files("hgpu.catalog").joinpath("data/gpus.yaml").read_text(encoding="utf-8")
    return tuple(cast("list[_Entry]", yaml.load(text, Loader=_Loader)["gpus"]))


@cache
def _types() -> Mapping[str, GpuType]:
    return MappingProxyType({entry["name"]: _gpu_type(entry) for entry in _entries()})


@cache
def _names() -> Mapping[str, str]:
    """Map every name and alias, as compared, to the GPU type's name; no two types may share one."""
    names: dict[str, str] = {}
    for entry in _entries():
        for alias in (entry["name"], *entry["aliases"]):
            owner = names.setdefault(_key(alias), entry["name"])
            if owner != entry["name"]:
                raise InputError(f"the GPU catalog gives '{alias}' to both {owner} and {entry['name']}")
    return MappingProxyType(names)


def _socket_bandwidth_bytes_per_s() -> float:
    (cpu,) = (entry for entry in _entries() if entry["name"] == "CPU")
    return cpu["socket_bandwidth_gb_s"] * _GIGA


def _gpu_type(entry: _Entry) -> GpuType:
    return GpuType(
        name=entry["name"],
        vendor=entry["vendor"],
        memory_bytes=round(entry["memory_gib"] * _GIB),
        memory_bandwidth_bytes_per_s=entry["memory_bandwidth_gb_s"] * _GIGA,
        flops_per_s=MappingProxyType({DType(k): rate * _TERA for k, rate in entry["tflops"].items()}),
        sm_count=entry["sm_count"],
        host_link_bytes_per_s=entry["host_link_gb_s"] * _GIGA,
        peer_link_bytes_per_s=entry["peer_link_gb_s"] * _GIGA,
        source=entry["source"],
        cores=entry.get("cores", 0),
        compute_capability=entry.get("compute_capability", ""),
    )
