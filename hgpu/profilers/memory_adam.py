"""Speed of an Adam step whose four fp32 tensors lie on one node: torch's fused one, or else numpy's."""

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hgpu.artifacts.payloads.memory import AdamRow
from hgpu.core.memory import MemoryNode
from hgpu.profilers.memory_timing import bound_to, placed_array, spread, usable_cpus

TORCH, NUMPY = "torch fused", "numpy"
SHORTEST_S = 0.02  # of a repeat: a small step is taken several times in each
BETAS = (0.9, 0.999)
LR, EPS, DECAY = 1e-4, 1e-8, 0.01


def adam_implementation() -> str:
    """Return what a step is measured with here."""
    return TORCH if importlib.util.find_spec("torch") is not None else NUMPY


def measure_adam(
    node: MemoryNode, cpu_node: MemoryNode, threads: int, elements: int, repeats: int
) -> AdamRow:
    """Time steps over `elements` on a node's memory by cores of a node. Raises as `placed_array`."""
    implementation = adam_implementation()
    arrays = [placed_array(node, 4 * elements).view(np.float32) for _ in range(4)]
    arrays[1].fill(1e-3)  # gradients
    threads = threads if implementation == TORCH else 1
    with bound_to(usable_cpus(cpu_node)[:threads]):
        step = _torch_step(arrays, threads) if implementation == TORCH else adam_step(arrays)
        seconds = _repeated(step, repeats)
    return AdamRow(
        node=node.node,
        cpu_node=cpu_node.node,
        threads=threads,
        implementation=implementation,
        elements=elements,
        seconds=seconds,
        spread=spread(seconds),
        elements_per_s=elements / statistics.median(seconds),
    )


def _repeated(step: Callable[[], object], repeats: int) -> list[float]:
    step()
    start = time.perf_counter()
    step()
    turns = max(1, round(SHORTEST_S / (time.perf_counter() - start)))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(turns):
            step()
        seconds.append((time.perf_counter() - start) / turns)
    return seconds


def _torch_step(arrays: list[Any], threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    weights, gradients, momentum, variance = (torch.from_numpy(array) for array in arrays)
    parameter = torch.nn.Parameter(weights)
    parameter.grad = gradients
    optimizer = torch.optim.AdamW([parameter], lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True)
    optimizer.state[parameter] = {"step": torch.tensor(0.0), "exp_avg": momentum, "exp_avg_sq": variance}
    return lambda: optimizer.step()


def adam_step(arrays: list[Any]) -> Callable[[], object]:
    """Return a step in several passes with one scratch array; numpy uses one core for it."""
    weights, gradients, momentum, variance = arrays
    scratch = np.empty_like(weights)
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1
        np.multiply(momentum, BETAS[0], out=momentum)
        np.multiply(gradients, 1 - BETAS[0], out=scratch)
        np.add(momentum, scratch, out=momentum)
        np.multiply(variance, BETAS[1], out=variance)
        np.multiply(gradients, gradients, out=scratch)
        np.multiply(scratch, 1 - BETAS[1], out=scratch)
        np.add(variance, scratch, out=variance)
        np.sqrt(variance, out=scratch)
        np.multiply(scratch, 1 / (1 - BETAS[1] ** taken) ** 0.5, out=scratch)
        np.add(scratch, EPS, out=scratch)
        np.divide(momentum, scratch, out=scratch)
        np.multiply(scratch, LR / (1 - BETAS[0] ** taken), out=scratch)
        np.multiply(weights, 1 - LR * DECAY, out=weights)
        np.subtract(weights, scratch, out=weights)

    return step
