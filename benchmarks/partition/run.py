"""What a repartition decision takes, where it starts to swing, and how well a noisy sweep is fitted.

    python benchmarks/partition/run.py [--decisions 20000] [--seed 0]

Models and loads are random: each roof's rate, saturation and decay, the contention, the lengths and numbers
of prompts and decodes of Llama-3.1-8B. No GPU is used, and no figure here says how fast one is.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np

from hgpu.catalog.gpus import resolve_gpu
from hgpu.catalog.models import load_model
from hgpu.core.partition import Load, OperatorClass, Work
from hgpu.core.step import StepBatch, prefill_batch
from hgpu.latency.lattice import Lattice, lattice_of
from hgpu.latency.operators import load_of
from hgpu.latency.partition import PartitionModel, PhaseTimes, Roof, Roofs, phase_times
from hgpu.latency.partition_choice import ChoiceOptions, Goal
from hgpu.latency.partition_fit import fit_class
from hgpu.latency.repartition import Hysteresis, Running, repartition
from hgpu.profilers.partition_samples import ShareSample

LLAMA = load_model("meta-llama/Llama-3.1-8B")
OPTIONS, HYSTERESIS = ChoiceOptions(), Hysteresis()
DEVICES = ("H200", "A100-80GB", "B200", "RTX-PRO-6000", "cpu-64core")
LOADS, LOOKS = 300, 500
NOISES = (0.5, 1.0, 2.0, 4.0)
SWEPT = [Work(1.6e10 * tokens, 1.6e10) for tokens in (16, 64, 128, 256, 512, 2048)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=20_000, help="timed, of each device")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| device | splits | p50, ms | p99, ms | p99.9, ms | most, ms |\n|---|---:|---:|---:|---:|---:|")
    for name in DEVICES:
        print(timed(name, options.decisions, np.random.default_rng(options.seed)), flush=True)
    print("\n| noise of the times | of the tolerated | mean switches | most | loads with more than one |")
    print("|---:|---:|---:|---:|---:|")
    for times_tolerated in NOISES:
        print(swung(times_tolerated, np.random.default_rng(options.seed)), flush=True)
    print("\n| noise of the sweep | roofs found | saturation | decay | rate | held-out error |")
    print("|---:|---:|---:|---:|---:|---:|")
    for noise in (0.0, 0.01, 0.03, 0.05):
        print(fitted(noise, np.random.default_rng(options.seed)), flush=True)


def timed(name: str, decisions: int, rng: np.random.Generator) -> str:
    """One row: from two steps' contents to the split that runs on, one decision after the other."""
    lattice = lattice_of(resolve_gpu(name))
    running = Running(lattice.splits[0])
    seconds = []
    for number in range(decisions):
        if number % 100 == 0:
            model = random_model(rng)
        prefill, decode = random_steps(rng)
        kv_use = rng.random()
        start = time.perf_counter()
        times = phase_times(model, load_of(LLAMA, prefill, decode), lattice)
        running = repartition(running, times, kv_use, OPTIONS, HYSTERESIS).running
        seconds.append(time.perf_counter() - start)
    p50, p99, p999, most = np.quantile(seconds, [0.5, 0.99, 0.999, 1.0]) * 1e3
    return f"| {name} | {len(lattice.splits)} | {p50:.3f} | {p99:.3f} | {p999:.3f} | {most:.2f} |"


def swung(times_tolerated: float, rng: np.random.Generator) -> str:
    """One row: how often a constant load with noise of the times is repartitioned in so many looks."""
    noise = times_tolerated * HYSTERESIS.tolerated_time_noise
    switches = [switched(load, rng, noise) for load in random_loads(rng)]
    more = sum(count > 1 for count in switches)
    return (
        f"| {100 * noise:.2f} % | {times_tolerated:g}× | {np.mean(switches):.2f} | {max(switches)} "
        f"| {more} of {len(switches)} |"
    )


def switched(times: PhaseTimes, rng: np.random.Generator, noise: float) -> int:
    """Count the switches of one load, from a random split; each time is off by a factor up to 1 + noise."""
    goal = rng.choice(list(Goal))
    running, count = Running(times.splits[rng.integers(len(times.splits))], goal), 0
    kv_use = 0.9 if goal is Goal.DECODE else 0.1
    for _ in range(LOOKS):
        off = (1.0 + noise) ** rng.uniform(-1, 1, (2, len(times.splits)))
        seen = PhaseTimes(times.splits, times.prefill_s * off[0], times.decode_s * off[1])
        look = repartition(running, seen, kv_use, OPTIONS, HYSTERESIS)
        count += look.running.split != running.split
        running = look.running
    return count


def fitted(noise: float, rng: np.random.Generator) -> str:
    """One row: median error of the parameters over random pairs of roofs that both bind in the sweep."""
    rows, found = [], 0
    trials = 100
    for _ in range(trials):
        true = Roofs(random_roof(rng, 9e14), random_roof(rng, 8e12))
        fit = fit_class(OperatorClass.PREFILL_DENSE, list(swept(true, noise, rng)))
        errors = [
            (abs(g.saturation - t.saturation), abs(g.decay - t.decay), abs(g.per_s / t.per_s - 1))
            for t, g in ((true.compute, fit.roofs.compute), (true.memory, fit.roofs.memory))
            if t is not None and g is not None
        ]
        found += len(errors) == 2
        rows += [(*error, fit.median_error) for error in errors]
    saturation, decay, rate, held_out = np.median(rows, axis=0)
    return (
        f"| {noise:.0%} | {found} of {trials} | ±{saturation:.3f} | ±{decay:.3f} | ±{rate:.1%} "
        f"| {held_out:.1%} |"
    )


def swept(roofs: Roofs, noise: float, rng: np.random.Generator) -> Iterator[ShareSample]:
    """Yield a class's times at every split of an H200, six sizes each."""
    assert roofs.compute is not None and roofs.memory is not None
    for split in Lattice(132, 8, 8):
        share = split.prefill_share
        for work in SWEPT:
            seconds = max(work.flops / roofs.compute.rate(share), work.bytes / roofs.memory.rate(share))
            yield ShareSample(OperatorClass.PREFILL_DENSE, share, work, seconds * rng.lognormal(0, noise))


def random_loads(rng: np.random.Generator) -> Iterator[PhaseTimes]:
    lattice = lattice_of(resolve_gpu("H200"))
    for _ in range(LOADS):
        load: Load = load_of(LLAMA, *random_steps(rng))
        yield phase_times(random_model(rng), load, lattice)


def random_steps(rng: np.random.Generator) -> tuple[StepBatch, StepBatch]:
    prompts = prefill_batch(float(rng.integers(64, 8192)), float(rng.integers(0, 16_384)))
    seqs = float(rng.integers(1, 256))
    return prompts, StepBatch(decode_seqs=seqs, decode_context_tokens=seqs * rng.integers(100, 8000))


def random_model(rng: np.random.Generator) -> PartitionModel:
    roofs = {kind: Roofs(random_roof(rng, 9e14), random_roof(rng, 8e12)) for kind in OperatorClass}
    return PartitionModel(roofs, float(rng.random()), overhead_s=1e-3)


def random_roof(rng: np.random.Generator, per_s: float) -> Roof:
    return Roof(per_s * rng.uniform(0.5, 1.0), rng.uniform(0.15, 0.8), rng.uniform(0.0, 0.6))


if __name__ == "__main__":
    main()
