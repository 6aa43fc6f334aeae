"""The engine options that a vLLM server takes where nobody sets them.

`EngineArgs.get_batch_defaults` of vLLM 0.32, for an API server: 16,384 tokens and 1,024 sequences a step
where the device has 160 GiB or more, 8,192 and 1,024 from 70 GiB on except for A100s (larger
steps cost them throughput, vLLM pull request 17885), else 2,048 and 256; on CPUs 2,048 and 128 a
rank.
"""

from hgpu.core.errors import Infeasible
from hgpu.core.gpu import GpuType
from hgpu.core.model import ModelSpec
from hgpu.core.operating_point import EngineOptions

SHORTEST_CONTEXT = 8192


def default_engine(
    model: ModelSpec, gpu: GpuType, tp: int, total_tokens: int, concurrency: int
) -> EngineOptions:
    """Return the options of a server for requests of `total_tokens`, `concurrency` of them at once.

    The context and, where the default is too small, the sequences are rounded up to a power of two, so
    that alike questions share an operating point. Raises Infeasible beyond the model's context.
    """
    if total_tokens > model.max_context_tokens:
        raise Infeasible(
            f"{model.name} can't serve requests of {total_tokens} tokens",
            f"its context has {model.max_context_tokens}",
            "ask for shorter requests",
        )
    tokens, seqs = _batch_defaults(gpu, tp)
    seqs = seqs if concurrency <= seqs else _power_of_two(concurrency)
    context = min(_power_of_two(max(total_tokens, SHORTEST_CONTEXT)), model.max_context_tokens)
    return EngineOptions(max(tokens, seqs), seqs, context)


def _batch_defaults(gpu: GpuType, tp: int) -> tuple[int, int]:
    memory_gib = gpu.memory_bytes / 2**30
    if gpu.is_cpu:
        return 2048 * tp, 128 * tp
    if memory_gib >= 160:
        return 16_384, 1024
    if memory_gib >= 70 and not gpu.name.startswith("A100"):
        return 8192, 1024
    return 2048, 256


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
