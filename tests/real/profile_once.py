"""Profile the model in argv[1] into the folder argv[2]; a process of its own, to be killed."""

import sys
from pathlib import Path

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.profilers.vllm import VllmJob, profile_vllm

CPU = resolve_gpu("cpu-1core")
ENGINE = EngineOptions(
    max_num_batched_tokens=128, max_num_seqs=4, max_model_len=512, enforce_eager=True, kv_cache_bytes=2**30
)


def small_job(folder: Path | str) -> VllmJob:
    """Return a job of seconds: short prompts, few sequences, two repeats."""
    point = OperatingPoint(CPU.name, dtype=DType.FP32, engine=ENGINE)
    model = load_model(str(folder), DType.FP32)
    return VllmJob(
        str(folder), model, CPU, point, "dummy", repeats=2, decode_steps=4, setup_tokens=256, cores=(0,)
    )


if __name__ == "__main__":
    profile_vllm(small_job(sys.argv[1]), Path(sys.argv[2]), lambda *event: print(*event, flush=True))
