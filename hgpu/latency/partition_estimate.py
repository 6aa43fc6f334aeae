"""A partition model without a sweep: from a data sheet, stated efficiencies and two assumptions.

The rates of the whole device are those of the roofline (`hgpu.profilers.estimate`). Assumed is how they
depend on the share: compute grows with it all the way, and memory's bandwidth is reached with half of the
SMs (Nexus, arXiv 2507.06608, reports that decode gains less than 3 % for each 10 % of SMs past 50 %).
Contention is the paper's. A fitted model replaces all of it.
"""

from hgpu.core.partition import OperatorClass
from hgpu.latency.partition import PartitionModel, Roof, Roofs
from hgpu.profilers.estimate import Roofline

BANDWIDTH_SHARE = 0.5


def estimated_partition(roofline: Roofline) -> PartitionModel:
    """Return the partition model of each of a roofline's devices; its provenance is `estimated`."""
    efficiency, tp = roofline.efficiency, roofline.tp
    dense = Roofs(
        Roof(efficiency.compute * roofline.flops_per_s / tp),
        _memory(efficiency.bandwidth * roofline.bandwidth_bytes_per_s / tp),
    )
    attention = Roofs(
        Roof(efficiency.attention_compute * roofline.attention_flops_per_s / tp),
        _memory(efficiency.kv_bandwidth * roofline.bandwidth_bytes_per_s / tp),
    )
    matmul = (OperatorClass.PREFILL_DENSE, OperatorClass.DECODE_DENSE)
    roofs = {kind: dense if kind in matmul else attention for kind in OperatorClass}
    return PartitionModel(roofs, contention=1.0, overhead_s=efficiency.step_overhead_s)


def _memory(bytes_per_s: float) -> Roof:
    """Return the roof that reaches a bandwidth at BANDWIDTH_SHARE and keeps it."""
    return Roof(bytes_per_s / BANDWIDTH_SHARE, BANDWIDTH_SHARE, 0.0)
