"""Accelerators and the memory that they can reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class DType(StrEnum):
    """Number formats that weights, activations or the KV cache are held in."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    INT8 = "int8"
    FP4 = "fp4"
    INT4 = "int4"

    @property
    def bits(self) -> int:
        """Bits of one element, without the scales of a quantised format."""
        return {"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4}[self]


@dataclass(frozen=True, slots=True)
class GpuType:
    """One accelerator model. A CPU bound to some cores is one too (`cpu-2core`).

    `flops_per_s` holds dense (not sparse) peak rates by number format; a format that the
    hardware lacks is absent. `host_link_bytes_per_s` is one direction between host and device,
    `peer_link_bytes_per_s` one direction to the other devices of the same machine.
    `compute_capability` is NVIDIA's, such as "9.0"; empty for what has none.
    """

    name: str
    vendor: str
    memory_bytes: int
    memory_bandwidth_bytes_per_s: float
    flops_per_s: Mapping[DType, float]
    sm_count: int
    host_link_bytes_per_s: float
    peer_link_bytes_per_s: float
    source: str = ""
    cores: int = 0
    compute_capability: str = ""

    @property
    def is_cpu(self) -> bool:
        """True where engines are bound to CPU cores instead of a device."""
        return self.cores > 0


@dataclass(frozen=True, slots=True)
class MemoryTier:
    """A memory that tensors may live in: HBM, local DRAM, CXL or NVMe."""

    name: str
    capacity_bytes: int
    host_bandwidth_bytes_per_s: float
    device_bandwidth_bytes_per_s: float
