"""Pinning placed memory for CUDA, and how fast a GPU copies from and to it. Never run by us on a GPU yet."""

import importlib.util
import statistics
import time
from typing import Any, Literal

from hgpu.artifacts.payloads.memory import CopyRow
from hgpu.core.errors import EngineError
from hgpu.core.memory import MemoryNode
from hgpu.profilers.memory_timing import placed_array, spread


def gpus_of_torch() -> int:
    """Return how many GPUs torch can use here; 0 without torch."""
    if importlib.util.find_spec("torch") is None:
        return 0
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def pin(address: int, size_bytes: int) -> None:
    """Lock pages for direct copies by CUDA devices. Raises EngineError without one, or where CUDA refuses."""
    if not gpus_of_torch():
        raise EngineError(
            "memory can't be pinned for a GPU here",
            "torch finds no CUDA device",
            "run it where a GPU is attached, or leave it unpinned",
        )
    import torch

    torch.cuda.init()  # cudart answers only once a context is there
    refused = int(torch.cuda.cudart().cudaHostRegister(address, size_bytes, 0))
    if refused:
        raise EngineError(
            f"CUDA didn't pin {size_bytes / 2**30:.2f} GiB",
            f"cudaHostRegister: error {refused}",
            "raise the limit of locked memory (ulimit -l unlimited), or pin less",
        )


def unpin(address: int) -> None:
    """Let CUDA forget memory that was pinned, before it is given back."""
    import torch

    torch.cuda.cudart().cudaHostUnregister(address)


def measure_copies(node: MemoryNode, gpu: int, size_bytes: int, repeats: int) -> list[CopyRow]:
    """Time copies of a node's pinned memory to a GPU and back. Raises as `placed_array` and `pin`."""
    import torch

    array = placed_array(node, size_bytes)
    address = int(array.ctypes.data)
    pin(address, size_bytes)
    try:
        host = torch.from_numpy(array)
        device = torch.empty(size_bytes, dtype=torch.uint8, device=f"cuda:{gpu}")
        name = torch.cuda.get_device_name(gpu)
        return [
            _copied(node, name, "to_device", device, host, repeats),
            _copied(node, name, "to_host", host, device, repeats),
        ]
    finally:
        unpin(address)


def _copied(
    node: MemoryNode,
    gpu: str,
    direction: Literal["to_device", "to_host"],
    target: Any,
    source: Any,
    repeats: int,
) -> CopyRow:
    import torch

    seconds = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    counted = seconds[1:]
    return CopyRow(
        node=node.node,
        gpu=gpu,
        direction=direction,
        seconds=counted,
        spread=spread(counted),
        bytes_per_s=source.nbytes / statistics.median(counted),
    )
