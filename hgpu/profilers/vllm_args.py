"""How an operating point is said to vLLM: arguments, command-line flags and environment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hgpu.core.errors import InputError
from hgpu.core.gpu import DType, GpuType
from hgpu.core.operating_point import OperatingPoint

SERVER_MODULE = "vllm.entrypoints.openai.api_server"
CPU_KV_CACHE_GIB = 1  # where the operating point doesn't say

# Formats that only a quantised checkpoint has are left to its own config ("auto").
_DTYPES = {DType.BF16: "bfloat16", DType.FP16: "float16", DType.FP32: "float32"}
_KV_DTYPES = {DType.BF16: "bfloat16", DType.FP16: "float16", DType.FP8: "fp8"}
_CPU_KV_DTYPES = {DType.FP8: "fp8"}


def engine_arguments(
    source: str, point: OperatingPoint, gpu: GpuType, load_format: str = "auto"
) -> dict[str, object]:
    """Return the keyword arguments of `vllm.LLM` (or `EngineArgs`) for an operating point.

    `source` is a model folder or a Hugging Face id; `load_format` "dummy" makes random weights.
    Raises InputError for a KV-cache format that vLLM lacks there.
    """
    engine = point.engine
    arguments: dict[str, object] = {
        "model": source,
        "dtype": _DTYPES.get(point.dtype, "auto"),
        "tensor_parallel_size": point.tp,
        "max_model_len": engine.max_model_len,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "max_num_seqs": engine.max_num_seqs,
        "enforce_eager": engine.enforce_eager,
        "load_format": load_format,
    }
    if point.dtype is DType.FP8:
        arguments["quantization"] = "fp8"
    if engine.kv_cache_dtype is not None:
        arguments["kv_cache_dtype"] = _kv_cache_dtype(engine.kv_cache_dtype, gpu)
    if gpu.is_cpu:
        return arguments
    arguments["gpu_memory_utilization"] = engine.gpu_memory_utilization
    if engine.kv_cache_bytes is not None:
        arguments["kv_cache_memory_bytes"] = engine.kv_cache_bytes
    return arguments


def _kv_cache_dtype(dtype: DType, gpu: GpuType) -> str:
    """Return vLLM's name of a format; its CPU attention knows the model's own and FP8 (0.32)."""
    known = _CPU_KV_DTYPES if gpu.is_cpu else _KV_DTYPES
    if dtype not in known:
        raise InputError(
            f"vLLM can't keep the KV cache in {dtype} on {gpu.name}",
            f"it knows {', '.join(known)} there, and the model's own format",
            "use one of them, or leave engine.kv_cache_dtype out",
        )
    return known[dtype]


def command_line(source: str, point: OperatingPoint, gpu: GpuType, load_format: str = "auto") -> list[str]:
    """Return the same arguments as flags of `python -m vllm.entrypoints.openai.api_server`."""
    return flags(engine_arguments(source, point, gpu, load_format))


def flags(arguments: Mapping[str, object]) -> list[str]:
    """Return `--flag value` pairs; True is `--flag` and False `--no-flag`."""
    words: list[str] = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words


def engine_environment(
    source: str, point: OperatingPoint, gpu: GpuType, cores: Sequence[int], gpus: Sequence[int]
) -> dict[str, str]:
    """Return the environment that binds an engine to its cores or devices.

    `cores` are CPU core ids, used where `gpu` is a CPU; `gpus` are device indices, used where
    it isn't. Raises InputError where there are fewer of them than the operating point needs.
    """
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if Path(source).is_absolute() or Path(source).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if gpu.is_cpu:
        return environment | _cpu_environment(point, gpu, cores)
    if len(gpus) < point.tp:
        raise InputError(
            f"{point.name} needs {point.tp} devices, but {len(gpus)} are given",
            "each rank of tensor parallelism takes a device of its own",
            "give as many device indices as the tensor parallel degree",
        )
    devices = ",".join(str(index) for index in gpus[: point.tp])
    # NVML counts the cards in the order of their slots; CUDA, left to itself, by their speed.
    return environment | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": devices}


def _cpu_environment(point: OperatingPoint, gpu: GpuType, cores: Sequence[int]) -> dict[str, str]:
    """Bind the engine's OpenMP threads, one list of cores a tensor parallel rank.

    An affinity set before the start reaches every process of the engine, but vLLM's own
    binding ("auto") then keeps a core back for its scheduler wherever it may use more than
    one: on two cores all arithmetic ran on the first. Naming the cores gives it all of them;
    the scheduler, which polls and yields, shares them.
    """
    if len(cores) < point.tp:
        raise InputError(
            f"{point.name} needs {point.tp} cores at least, but {len(cores)} are given",
            "each rank of tensor parallelism takes cores of its own",
            "give more cores or a smaller tensor parallel degree",
        )
    share = len(cores) // point.tp
    ranks = [cores[rank * share : (rank + 1) * share] for rank in range(point.tp)]
    cache_bytes = point.engine.kv_cache_bytes or CPU_KV_CACHE_GIB * 2**30
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, cache_bytes // 2**30)),  # vLLM reads whole GiB
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(",".join(str(core) for core in rank) for rank in ranks),
    }
