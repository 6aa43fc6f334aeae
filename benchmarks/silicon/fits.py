"""How well hgpu's step model describes steps composed of measured kernels: cross-validated errors.

python benchmarks/silicon/fits.py
"""

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.latency.fit import Fit, fit
from hgpu.profilers.silicon import silicon

CASES = (
    ("meta-llama/Llama-3.1-70B", DType.FP8, (2, 4, 8)),
    ("Qwen/Qwen3-32B", DType.BF16, (1, 2, 4)),
)
GPUS = ("H100-SXM", "H200")
ENGINES = (
    EngineOptions(max_num_batched_tokens=2048, max_model_len=8192),
    EngineOptions(max_num_batched_tokens=8192, max_model_len=16384),
)


def fitted(name: str, dtype: DType, gpu: str, tp: int, engine: EngineOptions) -> Fit:
    """Return the fit of one operating point."""
    model = load_model(name, dtype)
    point = OperatingPoint(gpu, tp, dtype=dtype, engine=engine)
    profile = silicon(model, name, resolve_gpu(gpu), point)
    return fit(profile.samples, model, profile.kv_capacity_tokens, profile.provenance)


def main() -> None:
    """Print a Markdown table of median and 90th percentile errors, all steps and by phase."""
    print("| model | GPU | tp | token budget | all | prefill | decode | mixed |\n|" + "---|" * 8)
    for name, dtype, degrees in CASES:
        for gpu in GPUS:
            for tp in degrees:
                for engine in ENGINES:
                    result = fitted(name, dtype, gpu, tp, engine)
                    pairs = [(result.latency.median_error, result.latency.p90_error)]
                    pairs += [(row.median, row.p90) for row in result.errors]
                    cells = " | ".join(f"{median:.1%} / {p90:.1%}" for median, p90 in pairs)
                    print(f"| {name} {dtype} | {gpu} | {tp} | {engine.max_num_batched_tokens} | {cells} |")


if __name__ == "__main__":
    main()
