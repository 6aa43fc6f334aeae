"""How fast experts come from the host to the device, at their own size.

On a GPU an expert is copied from pinned host memory to device memory, as an expert cache does it. On a CPU
there is no such link: what is measured is a copy within its memory, and it is called that.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from hgpu.core.experts import CopySpeed, Link

POOL_BYTES = 256 * 2**20  # more than the caches of a CPU hold
ROUNDS = 7
ROUND_S = 0.02


def copy_speed(size_bytes: int) -> CopySpeed:
    """Measure copies of `size_bytes` from ever other places of the host's memory."""
    import torch

    on_gpu = torch.cuda.is_available()
    places = max(2, POOL_BYTES // size_bytes)
    pool = torch.ones((places, size_bytes), dtype=torch.uint8, pin_memory=on_gpu)
    slots = torch.empty((8, size_bytes), dtype=torch.uint8, device="cuda" if on_gpu else "cpu")

    def copied(first: int, count: int) -> float:
        start_s = time.perf_counter()
        for number in range(first, first + count):
            slots[number % 8].copy_(pool[number * 7919 % places], non_blocking=on_gpu)
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start_s

    speeds = sorted(_rounds(copied, size_bytes))
    link = Link.PINNED if on_gpu else Link.HOST
    return CopySpeed(link, size_bytes, median(speeds), speeds[0], speeds[-1])


def _rounds(copied: Callable[[int, int], float], size_bytes: int) -> list[float]:
    count = 8
    while (took_s := copied(0, count)) < ROUND_S:
        count = max(count * 2, int(count * ROUND_S / took_s))
    return [size_bytes * count / copied(round_ * count, count) for round_ in range(ROUNDS)]


def expert_bytes(layer: Any) -> int:
    """Return the bytes of one expert of a vLLM MoE layer, all of its parameters together."""
    parameters = list(layer.routed_experts.parameters())
    experts: int = layer.routed_experts.local_num_experts
    total: int = sum(p.numel() * p.element_size() for p in parameters if p.shape[:1] == (experts,))
    return total // experts
