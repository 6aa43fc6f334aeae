"""The sweep without torch: its works are a Llama's, and a device of known roofs is found again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from hgpu.catalog.models import load_model
from hgpu.core.errors import InputError
from hgpu.core.partition import PREFILL, OperatorClass, Split
from hgpu.core.provenance import Provenance
from hgpu.core.step import StepBatch, prefill_batch
from hgpu.latency.lattice import Lattice
from hgpu.latency.operators import load_of
from hgpu.latency.partition import PartitionModel, Roof, Roofs
from hgpu.latency.partition_fit import fit_partition
from hgpu.profilers.mini_shape import MiniShape, Size
from hgpu.profilers.partition import SweepDesign, sweep

LLAMA = load_model("meta-llama/Llama-3.1-8B")
SHAPE = MiniShape()
TRUE = PartitionModel(
    {
        OperatorClass.PREFILL_DENSE: Roofs(Roof(9e14, 0.6, 0.3), Roof(8e12, 0.35, 0.05)),
        OperatorClass.PREFILL_ATTENTION: Roofs(Roof(5e14, 0.8, 0.5), None),
        OperatorClass.DECODE_DENSE: Roofs(None, Roof(1e13, 0.3, 0.02)),
        OperatorClass.DECODE_ATTENTION: Roofs(None, Roof(9e12, 0.4, 0.1)),
    },
    contention=0.7,
)


@dataclass
class ModelSides:
    """Sides whose seconds are a partition model's: all that a sweep can see of a device."""

    split: Split
    asked: list[tuple[OperatorClass, Size]] = field(default_factory=list)

    def alone_s(self, kind: OperatorClass, size: Size, repeats: int) -> Sequence[float]:
        self.asked.append((kind, size))
        share = self.split.prefill_share if kind in PREFILL else self.split.decode_share
        roofs, work = TRUE.roofs[kind], SHAPE.work(kind, size)
        compute_s = work.flops / roofs.compute.rate(share) if roofs.compute else 0.0
        memory_s = work.bytes / roofs.memory.rate(share) if roofs.memory else 0.0
        return [max(compute_s, memory_s) * off for off in (0.98, 1.0, 1.02)][:repeats]

    def beside_s(self, decode: Size, prefill: Size, repeats: int) -> Sequence[float]:
        """Decode's whole step beside prefill, less its matrix multiplications."""
        load = SHAPE.load(prefill, decode)
        _, both_s = TRUE.phases_s(load, self.split.prefill_share, self.split.decode_share)
        (dense_s,) = self.alone_s(OperatorClass.DECODE_DENSE, decode, 3)[1:2]
        return [float(both_s) - dense_s] * repeats


@contextmanager
def model_device(split: Split) -> Iterator[ModelSides]:
    yield ModelSides(split)


def test_a_device_is_found_again_from_its_sweep() -> None:
    swept = sweep(model_device, SHAPE, Lattice(132, 8, 8).splits, SweepDesign(repeats=3))
    assert swept.spread == pytest.approx(0.04, rel=0.01)
    fit = fit_partition(swept.alone, swept.beside, Provenance.MEASURED)
    assert fit.contention.contention == pytest.approx(0.7, abs=1e-6)
    load = SHAPE.load(Size(3000, 500), Size(50, 1500))
    for split in (Split(112, 20), Split(64, 68), Split(16, 116)):
        shares = split.prefill_share, split.decode_share
        assert fit.model.phases_s(load, *shares) == pytest.approx(TRUE.phases_s(load, *shares), rel=1e-3)


def test_every_class_is_swept_at_every_size_of_its_phase() -> None:
    design = SweepDesign(prefill=(Size(8), Size(16)), decode=(Size(2, 4),), repeats=1)
    swept = sweep(model_device, SHAPE, [Split(1, 1), Split(1, 2)], design)
    assert len(swept.alone) == 2 * (2 + 2 + 1 + 1) and len(swept.beside) == 2 * 2
    assert {row.share for row in swept.alone if row.kind in PREFILL} == {1 / 2, 1 / 3}
    assert {row.share for row in swept.alone if row.kind not in PREFILL} == {1 / 2, 2 / 3}


def test_the_works_are_those_of_a_llama() -> None:
    """All layers of it; the output head isn't part of a layer, and paged KV is moved three times."""
    whole = MiniShape(layers=LLAMA.layers)
    prompts, decodes = Size(2048, 1000), Size(64, 1999)
    made = whole.load(prompts, decodes)
    counted = load_of(
        LLAMA, prefill_batch(2048, 1000), StepBatch(decode_seqs=64, decode_context_tokens=64 * 2000)
    )
    head = 2 * LLAMA.hidden_size * LLAMA.vocab_size
    assert made.prefill_dense.flops == pytest.approx(counted.prefill_dense.flops - 2048 * head, rel=1e-3)
    assert made.prefill_attention.flops == pytest.approx(counted.prefill_attention.flops)
    assert made.decode_attention.flops == pytest.approx(counted.decode_attention.flops)
    assert made.decode_attention.bytes == pytest.approx(3 * counted.decode_attention.bytes)
    assert made.prefill_attention.bytes == pytest.approx(3 * counted.prefill_attention.bytes)


def test_what_can_not_be_swept_is_refused() -> None:
    with pytest.raises(InputError, match="needs splits"):
        sweep(model_device, SHAPE, [], SweepDesign())
    with pytest.raises(InputError, match="measures nothing"):
        SweepDesign(prefill=())
    with pytest.raises(InputError, match="no step"):
        Size(0)
    with pytest.raises(InputError, match="can't be made"):
        MiniShape(dtype="int3")
