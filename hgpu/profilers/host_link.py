"""What copying experts from host memory costs, where it can't be measured."""

from dataclasses import dataclass

from hgpu.core.gpu import GpuType
from hgpu.core.model import ModelSpec


@dataclass(frozen=True, slots=True)
class HostLink:
    """Assumptions of mode `offload`; they are kept in every profile that rests on them.

    - `host_link`: the part of the link's rate that pinned copies of an expert's size reach. 25 of PCIe 4.0's
      31.5 GB/s, and 50 of PCIe 5.0's 63, are what bandwidth tests of pinned memory commonly report;
    - `copy_launch_s`: what a copy costs however small it is (an expert is two tensors);
    - `layer_host_s`: host time that a layer with experts adds to a step: without CUDA graphs its kernels are
      launched one by one, its router's answer is read back, and the cache decides.

    None of them was measured by hgpu yet.
    """

    host_link: float = 25 / 31.5
    copy_launch_s: float = 1.0e-5
    layer_host_s: float = 2.5e-4

    def copy_s(self, model: ModelSpec, gpu: GpuType, tp: int = 1) -> float:
        """Return the seconds that the copy of an expert takes; each of `tp` devices copies its part."""
        return model.expert_bytes / tp / (self.host_link * gpu.host_link_bytes_per_s) + self.copy_launch_s
