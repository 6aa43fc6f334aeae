"""Which fractions of a data sheet's peaks an engine reaches."""

from dataclasses import dataclass

from hgpu.core.gpu import DType, GpuType


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Fractions of peak, and fixed costs a step.

    The defaults are round figures for types without kernel tables; `hgpu profile` on the real
    hardware replaces them. Attention is counted against the 16-bit peak, in which it is computed.
    """

    compute: float = 0.60
    attention_compute: float = 0.40
    bandwidth: float = 0.80
    kv_bandwidth: float = 0.60
    link: float = 0.70
    step_overhead_s: float = 1.5e-3
    sequence_overhead_s: float = 2.5e-5
    allreduce_latency_s: float = 1.0e-5
    workspace_bytes: float = 1.5e9


def _calibrated(
    compute: float,
    attention: float,
    bandwidth: float,
    kv: float,
    link: float,
    reduce_us: float,
    step_us: float,
) -> Efficiency:
    return Efficiency(
        compute, attention, bandwidth, kv, link, step_us * 1e-6, allreduce_latency_s=reduce_us * 1e-6
    )


# Fitted to measured kernel tables (benchmarks/silicon/calibrate.py), for 16-bit and for 8-bit weights.
_AMPERE = _calibrated(0.79, 0.63, 0.71, 0.58, 0.27, 21, 1555)
_HOPPER = (
    _calibrated(0.70, 0.65, 0.79, 0.67, 0.50, 15, 1520),
    _calibrated(0.55, 0.61, 0.73, 0.66, 0.40, 17, 1540),
)
CALIBRATED: dict[str, tuple[Efficiency, Efficiency]] = {
    "A100-40GB": (_AMPERE, _AMPERE),
    "A100-80GB": (_AMPERE, _AMPERE),
    "L40S": (
        _calibrated(0.61, 0.56, 0.84, 0.82, 0.10, 31, 797),
        _calibrated(0.43, 0.57, 0.74, 0.88, 0.11, 19, 1364),
    ),
    "H100-PCIe": _HOPPER,
    "H100-NVL": _HOPPER,
    "H100-SXM": _HOPPER,
    "H200": _HOPPER,
    "B200": (
        _calibrated(0.60, 0.55, 0.73, 0.61, 0.34, 18, 1505),
        _calibrated(0.45, 0.45, 0.60, 0.56, 0.28, 19, 1585),
    ),
    "RTX-PRO-6000": (
        _calibrated(0.79, 0.45, 0.94, 0.85, 0.33, 33, 1313),
        _calibrated(0.65, 0.66, 0.92, 0.91, 0.34, 30, 1560),
    ),
}


def efficiency_of(gpu: GpuType, weights: DType) -> Efficiency:
    """Return what a type reaches with weights of a format; the defaults where no table covers it."""
    if gpu.name not in CALIBRATED:
        return Efficiency()
    sixteen, eight = CALIBRATED[gpu.name]
    return eight if weights.bits == 8 else sixteen
