"""Which roofline efficiencies agree best with measured kernels, for each GPU architecture.

Sets the free figures of `hgpu.profilers.estimate.Efficiency` so that `Roofline.step_s` comes closest,
in log seconds, to the steps that `hgpu.profilers.silicon` composes of measured kernels: dense models,
every tensor parallel degree that fits, prefill, decode and mixed batches. Prints a Markdown table.

    pip install 'hgpu[silicon]'
    python benchmarks/silicon/calibrate.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.errors import HgpuError
from hgpu.core.gpu import DType
from hgpu.core.operating_point import OperatingPoint
from hgpu.core.step import StepBatch
from hgpu.profilers.efficiency import Efficiency
from hgpu.profilers.estimate import Roofline
from hgpu.profilers.silicon import silicon
from hgpu.profilers.silicon_tables import DEGREES

ARCHITECTURES = {
    "Ampere (A100-80GB)": ("A100-80GB",),
    "Ada (L40S)": ("L40S",),
    "Hopper (H100-SXM, H200)": ("H100-SXM", "H200"),
    "Blackwell (B200)": ("B200",),
    "Blackwell (RTX-PRO-6000)": ("RTX-PRO-6000",),
}
MODELS = ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-70B")
FORMATS = (DType.BF16, DType.FP8)
FREE = (
    "compute",
    "attention_compute",
    "bandwidth",
    "kv_bandwidth",
    "link",
    "allreduce_latency_s",
    "step_overhead_s",
)
LOWEST = (0.05, 0.02, 0.1, 0.02, 0.02, 1e-7, 1e-5)
HIGHEST = (1.0, 1.0, 1.0, 1.0, 1.0, 2e-4, 1e-2)


@dataclass(frozen=True, slots=True)
class Step:
    """A step that the kernels time, and the roofline that is to describe it."""

    roofline: Roofline
    batch: StepBatch
    step_s: float


def steps(gpus: Sequence[str], dtype: DType) -> Iterator[Step]:
    """Return the composed steps of every model and degree that fits the GPU types."""
    for gpu in map(resolve_gpu, gpus):
        for name in MODELS:
            model = load_model(name, dtype)
            for tp in DEGREES:
                try:
                    profile = silicon(model, name, gpu, OperatingPoint(gpu.name, tp, dtype=dtype))
                except HgpuError:
                    continue  # a format without kernels, or too large for the memory
                roofline = Roofline(model, gpu, tp, Efficiency())
                yield from (Step(roofline, sample.batch, sample.step_s) for sample in profile.samples)


def log_ratio(values: NDArray[np.float64], rows: Sequence[Step]) -> NDArray[np.float64]:
    """Return log(roofline/kernels) of each step under the figures in `values`."""
    efficiency = replace(Efficiency(), **dict(zip(FREE, map(float, values), strict=True)))
    return np.array(
        [np.log(replace(r.roofline, efficiency=efficiency).step_s(r.batch) / r.step_s) for r in rows]
    )


def calibrate(rows: Sequence[Step]) -> NDArray[np.float64]:
    """Return the figures with the least squared log ratio, large deviations damped."""
    found = least_squares(
        log_ratio,
        _defaults(),
        bounds=(LOWEST, HIGHEST),
        x_scale=_defaults(),
        loss="soft_l1",
        f_scale=0.1,
        args=(rows,),
    )
    return np.asarray(found.x)


def _defaults() -> NDArray[np.float64]:
    return np.array([getattr(Efficiency(), name) for name in FREE])


def _error(values: NDArray[np.float64], rows: Sequence[Step]) -> str:
    errors = np.abs(np.expm1(log_ratio(values, rows)))
    return f"{np.median(errors):.1%} / {np.quantile(errors, 0.9):.1%}"


def main() -> None:
    """Print the table."""
    print("| architecture | weights | steps | " + " | ".join(FREE) + " | error now | error then |")
    print("|" + "---|" * (len(FREE) + 5))
    for title, gpus in ARCHITECTURES.items():
        for dtype in FORMATS:
            rows = list(steps(gpus, dtype))
            if not rows:
                continue
            best = calibrate(rows)
            figures = " | ".join(
                f"{value:.2f}" if value > 0.01 else f"{value * 1e6:.0f} µs" for value in best
            )
            errors = f"{_error(_defaults(), rows)} | {_error(best, rows)}"
            print(f"| {title} | {dtype} | {len(rows)} | {figures} | {errors} |", flush=True)


if __name__ == "__main__":
    main()
