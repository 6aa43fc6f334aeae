"""What vLLM is told: the same by keyword, by flag and by environment."""

from pathlib import Path

import pytest

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import InputError
from hgpu.core.gpu import DType, GpuType
from hgpu.core.operating_point import EngineOptions, OperatingPoint
from hgpu.profilers.vllm_args import command_line, engine_arguments, engine_environment

CPU, H100 = resolve_gpu("cpu-2core"), resolve_gpu("H100-SXM")
CPU_POINT = OperatingPoint(
    CPU.name, dtype=DType.FP32, engine=EngineOptions(512, 16, 2048, enforce_eager=True)
)


@pytest.mark.parametrize(
    ("dtype", "said", "quantization"),
    [
        (DType.BF16, "bfloat16", None),
        (DType.FP16, "float16", None),
        (DType.FP32, "float32", None),
        (DType.FP8, "auto", "fp8"),
        (DType.INT4, "auto", None),
    ],
)
def test_number_formats(dtype: DType, said: str, quantization: str | None) -> None:
    arguments = engine_arguments("m", OperatingPoint(H100.name, dtype=dtype), H100)
    assert (arguments["dtype"], arguments.get("quantization")) == (said, quantization)


def test_the_cache_format_is_said_only_where_it_is_asked_for() -> None:
    def asked(dtype: DType | None) -> OperatingPoint:
        return OperatingPoint(H100.name, engine=EngineOptions(kv_cache_dtype=dtype))

    assert "kv_cache_dtype" not in engine_arguments("m", asked(None), H100)
    assert engine_arguments("m", asked(DType.FP8), H100)["kv_cache_dtype"] == "fp8"
    assert engine_arguments("m", asked(DType.BF16), H100)["kv_cache_dtype"] == "bfloat16"
    words = command_line("m", asked(DType.FP8), H100)
    assert words[words.index("--kv-cache-dtype") + 1] == "fp8"


@pytest.mark.parametrize(("gpu", "dtype"), [(H100, DType.INT4), (CPU, DType.BF16)])
def test_a_cache_format_that_vllm_lacks_is_refused(gpu: GpuType, dtype: DType) -> None:
    point = OperatingPoint(gpu.name, engine=EngineOptions(kv_cache_dtype=dtype))
    with pytest.raises(InputError, match=f"can't keep the KV cache in {dtype} on {gpu.name}") as caught:
        engine_arguments("m", point, gpu)
    assert "fp8" in caught.value.why


def test_memory_is_shared_out_on_devices_only() -> None:
    point = OperatingPoint(H100.name, tp=2, engine=EngineOptions(kv_cache_bytes=5 * 2**30))
    on_device = engine_arguments("m", point, H100)
    assert on_device["gpu_memory_utilization"] == 0.9
    assert on_device["kv_cache_memory_bytes"] == 5 * 2**30
    assert "gpu_memory_utilization" not in engine_arguments("m", CPU_POINT, CPU)


def test_flags_say_the_same() -> None:
    words = command_line("m", CPU_POINT, CPU, "dummy")
    assert words[:4] == ["--model", "m", "--dtype", "float32"]
    assert "--enforce-eager" in words
    assert words[words.index("--load-format") + 1] == "dummy"
    assert "--no-enforce-eager" in command_line("m", OperatingPoint(H100.name), H100)


def test_a_cpu_engine_is_given_its_cores_by_name() -> None:
    environment = engine_environment("org/model", CPU_POINT, CPU, (3, 5), ())
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "3,5"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert "HF_HUB_OFFLINE" not in environment


def test_ranks_share_the_cores_out() -> None:
    point = OperatingPoint(CPU.name, tp=2, engine=EngineOptions(kv_cache_bytes=3 * 2**30 + 5))
    environment = engine_environment("org/model", point, CPU, (0, 1, 2, 3), ())
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,1|2,3"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "3"


def test_a_device_engine_sees_its_devices_only(tmp_path: Path) -> None:
    environment = engine_environment(str(tmp_path), OperatingPoint(H100.name, tp=2), H100, (), (4, 6, 7))
    assert environment["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_too_few_places_are_refused() -> None:
    with pytest.raises(InputError, match="2 devices"):
        engine_environment("m", OperatingPoint(H100.name, tp=2), H100, (), (0,))
    with pytest.raises(InputError, match="1 cores"):
        engine_environment("m", CPU_POINT, CPU, (), ())
