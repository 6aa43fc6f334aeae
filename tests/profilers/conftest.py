"""A job of vLLM and a stand-in for the process that measures it."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.vllm import VllmJob, profile_vllm

HERE = Path(__file__).parent
CPU = resolve_gpu("cpu-1core")
MODEL = "meta-llama/Llama-3.2-1B"
ENGINE = EngineOptions(
    max_num_batched_tokens=128, max_num_seqs=4, max_model_len=512, enforce_eager=True, kv_cache_bytes=2**30
)


@pytest.fixture
def job() -> VllmJob:
    model = load_model(MODEL)
    point = OperatingPoint(CPU.name, dtype=model.weight_dtype, engine=ENGINE)
    cores = (min(os.sched_getaffinity(0)),)
    return VllmJob(MODEL, model, CPU, point, "dummy", 2, 4, 256, cores=cores, point_limit_s=60)


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ProfileResult]:
    """Profile with the stand-in, given its faults."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "standin_worker.py"}" "$@"\n')
    python.chmod(0o755)
    root = str(HERE.parents[1])
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setenv("HGPU_STANDIN_STARTS", str(tmp_path / "starts"))

    def run(job: VllmJob, faults: dict[str, str]) -> ProfileResult:
        monkeypatch.setenv("HGPU_STANDIN", json.dumps(faults))
        return profile_vllm(job, tmp_path, lambda *_: None, str(python))

    return run
