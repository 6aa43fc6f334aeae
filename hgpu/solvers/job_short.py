"""Where no way to train fits in memory: the nearest one, and the cheapest changes of the spec that fit."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NoReturn

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import Infeasible, InputError
from hgpu.core.training import Method, Offload
from hgpu.latency.training_memory import peak
from hgpu.latency.training_select import ActivationChoice
from hgpu.solvers.job_ways import GIB, Unusable, Way, runnable, ways_of
from hgpu.specs.finetune_job import Finetune, finetune_of

COPIES = [1, 2, 4, 8]


def raise_short(
    finetune: Finetune, ways: Sequence[Way], unusable: Sequence[Unusable], activations: ActivationChoice
) -> NoReturn:
    """Raise Infeasible with what the nearest way lacks and what would make one fit."""
    reasons = dict.fromkeys(row.reason for row in unusable)
    mended = dict.fromkeys(row.fix for row in unusable if row.fix)
    if not ways:
        raise Infeasible(
            f"nothing can train {finetune.name}",
            "; ".join(reasons) or "no offer has as many GPUs as the degrees ask for",
            "; or ".join(mended) or "allow other GPUs, degrees or offers",
        )
    near = min(ways, key=lambda way: (way.short_bytes, *way.key))
    moment = peak(near.moments)
    items = ", ".join(f"{name} {size / GIB:.1f}" for name, size in moment.device.items() if size > 0.05 * GIB)
    there = resolve_gpu(near.offer.gpu).memory_bytes / GIB
    why = (
        f"the nearest, {near.variant.name} with micro-batch {near.variant.micro_batch} on {near.offer.gpu}, "
        f"needs {moment.device_bytes / GIB:.1f} of {there:.1f} GiB at the moment '{moment.name}' ({items})"
    )
    found = sorted(_changed(finetune, activations)) or sorted(_changed_twice(finetune, activations))
    fixes = [f"{change} ({cost:,.2f} USD: {name})" for cost, change, name in found[:3]]
    raise Infeasible(
        f"no way to train {finetune.name} fits in memory",
        "; ".join([why, *reasons]),
        ", or ".join([*fixes, *mended]) or "allow GPUs with more memory, or a smaller model",
    )


def _changed(finetune: Finetune, activations: ActivationChoice) -> Iterator[tuple[float, str, str]]:
    """Yield price, words and the way of each single change of the spec that makes something fit."""
    for words, update in _changes(finetune):
        best = _fitting(finetune, update, activations)
        if best is not None:
            yield best.cost_usd, words, best.name
    yield from _shortened(finetune, {}, "lower context", activations)


def _changed_twice(finetune: Finetune, activations: ActivationChoice) -> Iterator[tuple[float, str, str]]:
    """Yield the same of pairs of changes, where no single one is enough."""
    for (words, update), (more, other) in combinations(_changes(finetune), 2):
        best = _fitting(finetune, update | other, activations)
        if best is not None:
            yield best.cost_usd, f"{words} and {more.removeprefix('allow ')}", best.name
    for words, update in _changes(finetune):
        yield from _shortened(finetune, update, f"{words} and lower context", activations)


def _shortened(
    finetune: Finetune, update: dict[str, Any], words: str, activations: ActivationChoice
) -> Iterator[tuple[float, str, str]]:
    """Yield the same of the longest of half, a quarter, … of the context that fits under a changed spec."""
    contexts = [finetune.spec.context >> power for power in range(1, finetune.spec.context.bit_length())]
    if not contexts or _fitting(finetune, update | {"context": 1}, activations) is None:
        return
    for context in contexts:
        best = _fitting(finetune, update | {"context": context}, activations)
        if best is not None:
            yield best.cost_usd, f"{words} to {context}", best.name
            return


def _fitting(finetune: Finetune, update: dict[str, Any], activations: ActivationChoice) -> Way | None:
    """Return the cheapest way under a changed spec, None where nothing fits either."""
    try:
        other = replace(finetune_of(finetune.spec.model_copy(update=update)), measured=finetune.measured)
    except InputError:
        return None  # such as targets of an adapter that the model hasn't
    ways, _ = ways_of(other, lambda variant: activations.of(other, variant))
    return next(iter(runnable(ways)), None)


def _changes(finetune: Finetune) -> Iterator[tuple[str, dict[str, Any]]]:
    spec = finetune.spec
    if True not in spec.checkpointing:
        yield "allow checkpointing: true", {"checkpointing": [True]}
    if Offload.ZERO3 not in spec.offload:
        yield "allow offload: zero3", {"offload": [Offload.ZERO3]}
    if Method.LORA not in spec.method:
        yield "allow method: lora", {"method": [Method.LORA]}
    if not set(COPIES) <= set(spec.data_parallel):
        yield f"allow data_parallel: {COPIES}", {"data_parallel": COPIES}
    if spec.gpus:
        yield "allow all gpus", {"gpus": []}
    if spec.micro_batch and 1 not in spec.micro_batch:
        yield "allow micro_batch: 1", {"micro_batch": [1]}
