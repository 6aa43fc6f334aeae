"""Sweep the splits of this machine with the mini-engine, and fit the partition model to what it shows.

    python benchmarks/partition/sweep.py cpu          # the cores that this process may use; needs torch
    python benchmarks/partition/sweep.py gpu          # green contexts on the attached GPU; hgpu[partition]

Prints each class's roofs with the error at held-out shares, and the contention.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from hgpu.catalog.gpus import attached_gpus, resolve_gpu
from hgpu.core.errors import HgpuError, InputError
from hgpu.core.partition import OperatorClass
from hgpu.latency.lattice import Lattice, lattice_of
from hgpu.latency.partition import Roof
from hgpu.latency.partition_fit import fit_class, fit_contention
from hgpu.profilers.cpu_sides import cpu_device
from hgpu.profilers.green_sides import green_device, require_green_contexts
from hgpu.profilers.mini_shape import MiniShape, Size
from hgpu.profilers.partition import Device, SweepDesign, Swept, sweep

SMALL = MiniShape(
    layers=2, hidden=1024, intermediate=2816, heads=16, kv_heads=8, head_dim=64, dtype="float32"
)
QUICK = SweepDesign(
    prefill=(Size(64), Size(256), Size(1024), Size(512, 2048)),
    decode=(Size(1, 4096), Size(8, 1024), Size(32, 512), Size(64, 1024)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", choices=("cpu", "gpu"))
    options = parser.parse_args()
    try:
        report(swept_cpu() if options.device == "cpu" else swept_gpu())
    except HgpuError as error:
        sys.exit("\n".join(error.lines()))


def swept_cpu() -> Swept:
    lattice = Lattice(len(os.sched_getaffinity(0)), 1, 1)
    return sweep(cpu_device(SMALL, QUICK.kv_tokens), SMALL, lattice.splits, QUICK)


def swept_gpu() -> Swept:
    require_green_contexts()
    card = attached_gpus()[0]
    if card.gpu is None:
        raise InputError(
            f"the catalog doesn't hold {card.nvml_name}", "its splits aren't known", "add it there"
        )
    shape, design = MiniShape(), SweepDesign()
    device: Device = green_device(shape, design.kv_tokens, card.index)
    return sweep(device, shape, lattice_of(resolve_gpu(card.gpu)).splits, design)


def report(swept: Swept) -> None:
    print(
        f"{len(swept.alone)} times alone, {len(swept.beside)} beside; repeats lie {swept.spread:.1%} apart\n"
    )
    print("| class | roof | a second | saturation | decay | held-out error, median / p90 |")
    print("|---|---|---:|---:|---:|---:|")
    for kind in OperatorClass:
        try:
            fit = fit_class(kind, [row for row in swept.alone if row.kind is kind])
        except HgpuError as error:
            print(f"| {kind} | {error.what} | | | | |")
            continue
        for name, roof in (("FLOPs", fit.roofs.compute), ("bytes", fit.roofs.memory)):
            if roof is not None:
                print(f"| {kind} | {row_of(name, roof)} | {fit.median_error:.1%} / {fit.p90_error:.1%} |")
    fit = fit_contention(swept.beside)
    print(
        f"\ncontention {fit.contention:.2f} (without bounds {fit.unbounded:.2f}), error of the times beside "
        f"{fit.median_error:.1%} / {fit.p90_error:.1%}; decode attention took "
        f"{slowed([row.beside_s / row.alone_s for row in swept.beside])} of its time alone"
    )


def row_of(name: str, roof: Roof) -> str:
    return f"{name} | {roof.per_s:.3g} | {roof.saturation:.2f} | {roof.decay:.2f}"


def slowed(ratios: Sequence[float]) -> str:
    return f"{min(ratios):.2f} to {max(ratios):.2f} times"


if __name__ == "__main__":
    main()
