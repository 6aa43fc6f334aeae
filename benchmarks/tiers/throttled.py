"""A real Adam in placed memory beside a tier that is slowed by repeating its traffic.

    python benchmarks/tiers/throttled.py [--million 64] [--slower 4] [--repeats 9]      # needs torch

One core steps torch's fused AdamW over 4 fp32 tensors and writes a bf16 copy. What lies in the slow tier is
done again, SLOWER − 1 times, on other memory of that size: the same kernels where all of a stripe is there,
writes where only the bf16 copy is. So it costs SLOWER times its traffic and changes no value. The ways take
turns within each repeat, so that a busy machine slows all of them.

The tier is slow by construction; what is measured is how a real optimizer's step adds up over tiers.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from hgpu.latency.offloaded_step import fit_blend
from hgpu.profilers.numa_errors import usable_nodes
from hgpu.tuning.tiered_memory import allocate

STRIPE_ELEMENTS = 4 * 2**20  # 64 MiB of the four tensors: more than the cache of one core


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--million", type=float, default=64, help="parameters of the step")
    parser.add_argument("--slower", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    stripes = max(2, round(options.million * 1e6 / STRIPE_ELEMENTS))
    ways = ways_of(stripes, options.slower)
    seconds = timed(ways, options.repeats)
    million = stripes * STRIPE_ELEMENTS / 1e6
    print(f"{million:.0f} million parameters, a tier {options.slower} times slower, one core\n")
    print("| way | median step, ms | ÷ DRAM only (median of pairs) | range of pairs | predicted, β = 1 |")
    print("|---|---:|---:|---:|---:|")
    predicted = predictions(options.slower)
    for way, found in seconds.items():
        ratios = [mine / base for mine, base in zip(found, seconds["DRAM only"], strict=True)]
        print(
            f"| {way} | {1e3 * statistics.median(found):.0f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f}–{max(ratios):.2f} | {predicted[way]:.2f} |"
        )
    base, slow, half = (seconds[way] for way in ("DRAM only", "all on the slow tier", "interleaved"))
    blend = fit_blend(((one / 2, four / 2), both) for one, four, both in zip(base, slow, half, strict=True))
    print(f"\nFitted to the interleaved steps: β = {blend:.2f}")


def predictions(slower: int) -> dict[str, float]:
    """Return step times over DRAM's by the model: 28 bytes of Adam, 6 of a copy that isn't fused into it."""
    return {
        "DRAM only": 1.0,
        "all on the slow tier": float(slower),
        "interleaved": (1 + slower) / 2,
        "level 1 in DRAM": (28 + 4 + 2 * slower) / 34,
    }


def ways_of(stripes: int, slower: int) -> dict[str, Callable[[], None]]:
    """Return a step a way. Slow stripes are repeated on a shadow that is as large as all of them."""
    adam, copies = adam_steps(stripes), copy_steps(stripes)
    adam_again, copies_again = adam_steps(stripes), copy_steps(stripes)
    writes_again = write_steps(stripes)

    def step(*slow: Sequence[Callable[[], object]]) -> None:
        for work in chain(*zip(adam, copies, strict=True), *slow * (slower - 1)):
            work()

    return {
        "DRAM only": lambda: step(),
        "all on the slow tier": lambda: step(adam_again, copies_again),
        "interleaved": lambda: step(adam_again[::2], copies_again[::2]),
        "level 1 in DRAM": lambda: step(writes_again),
    }


def adam_steps(stripes: int) -> list[Callable[[], Any]]:
    """Return the fused step of every stripe, on placed memory."""
    import torch

    node = min(usable_nodes())
    steps = []
    for _ in range(stripes):
        tensors = [allocate(4 * STRIPE_ELEMENTS, [node]).tensor(torch.float32) for _ in range(4)]
        parameter = torch.nn.Parameter(tensors[0])
        parameter.grad = tensors[1].fill_(1e-3)
        optimizer = torch.optim.AdamW([parameter], lr=1e-4, fused=True)
        optimizer.state[parameter] = {
            "step": torch.tensor(0.0), "exp_avg": tensors[2], "exp_avg_sq": tensors[3],
        }  # fmt: skip
        steps.append(optimizer.step)
    return steps


def copy_steps(stripes: int) -> list[Callable[[], Any]]:
    """Return the writing of every stripe's bf16 copy."""
    import torch

    node = min(usable_nodes())
    steps = []
    for _ in range(stripes):
        source = allocate(4 * STRIPE_ELEMENTS, [node]).tensor(torch.float32)
        target = allocate(2 * STRIPE_ELEMENTS, [node]).tensor(torch.bfloat16)
        steps.append(lambda source=source, target=target: target.copy_(source))
    return steps


def write_steps(stripes: int) -> list[Callable[[], Any]]:
    """Return the writing of every stripe's bf16 copy without reading what it is made of."""
    import torch

    node = min(usable_nodes())
    targets = [allocate(2 * STRIPE_ELEMENTS, [node]).tensor(torch.bfloat16) for _ in range(stripes)]
    return [target.zero_ for target in targets]


def timed(ways: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Run the ways in turn, once to warm up and then `repeats` times."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(repeats + 1):
        for way, step in ways.items():
            start = time.perf_counter()
            step()
            if number:
                seconds[way].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
