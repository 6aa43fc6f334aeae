"""What a job is after it went through its JSON file."""

import json
from dataclasses import asdict

import pytest

from hgpu.core.gpu import DType
from hgpu.core.operating_point import EngineOptions
from hgpu.profilers.vllm_job import WorkerJob


@pytest.mark.parametrize("dtype", [None, DType.FP8])
def test_the_engine_options_survive(dtype: DType | None) -> None:
    options = EngineOptions(max_num_seqs=16, kv_cache_dtype=dtype)
    written = json.loads(json.dumps(asdict(options)))
    job = WorkerJob("key", "journal", 1, (0,), 3, 8, 1024, 0, written, {})
    assert job.engine == options
    assert repr(job.engine) == repr(options)  # a format again, not only a text that equals one
