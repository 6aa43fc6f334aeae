"""The mini-engine computes what a transformer computes; needs torch (make test-vllm)."""

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from hgpu.core.errors import EngineError, InputError, InvalidMeasurement
from hgpu.core.partition import OperatorClass, Split
from hgpu.core.provenance import Provenance
from hgpu.latency.partition_fit import fit_partition
from hgpu.profilers.cpu_sides import cpu_device
from hgpu.profilers.mini_engine import MiniEngine
from hgpu.profilers.mini_shape import MiniShape, Size
from hgpu.profilers.partition import SweepDesign, sweep

pytestmark = pytest.mark.vllm
torch = pytest.importorskip("torch")

SHAPE = MiniShape(
    layers=3, hidden=64, intermediate=96, heads=4, kv_heads=2, head_dim=16, block_tokens=4, dtype="float32"
)


def last(states: Iterator[Any]) -> Any:
    *_, end = states
    return end


def test_a_token_decoded_after_its_prompt_is_as_if_it_were_the_prompt_s_last() -> None:
    engine = MiniEngine(SHAPE, "cpu", 128)
    hidden, slots = engine.hidden(23), engine.slots(1, 23)
    whole = last(engine.prefill(hidden, slots))
    engine.kv.zero_()
    last(engine.prefill(hidden[:22], slots[:, :22]))
    assert torch.allclose(engine.decode(hidden[22:], slots), whole[22:], atol=1e-5)


def test_a_prompt_in_two_chunks_is_as_in_one() -> None:
    engine = MiniEngine(SHAPE, "cpu", 128)
    hidden, slots = engine.hidden(23), engine.slots(1, 23)
    whole = last(engine.prefill(hidden, slots))
    engine.kv.zero_()
    last(engine.prefill(hidden[:10], slots[:, :10]))
    assert torch.allclose(last(engine.prefill(hidden[10:], slots)), whole[10:], atol=1e-5)


def test_sequences_decoded_together_are_as_each_alone() -> None:
    engine = MiniEngine(SHAPE, "cpu", 128)
    hidden, slots = engine.hidden(3 * 10), engine.slots(3, 10)
    for row in range(3):
        last(engine.prefill(hidden[row * 10 : row * 10 + 9], slots[row : row + 1, :9]))
    tokens = hidden[9::10]
    together = engine.decode(tokens, slots)
    for row in range(3):
        alone = engine.decode(tokens[row : row + 1], slots[row : row + 1])
        assert torch.allclose(alone, together[row : row + 1], atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_sequences_share_no_slot_and_blocks_are_in_no_order() -> None:
    slots = MiniEngine(SHAPE, "cpu", 128).slots(4, 10)
    assert len(set(slots.flatten().tolist())) == 40
    assert slots[:, 0].tolist() != sorted(slots[:, 0].tolist())


def test_prefill_stops_after_every_layer() -> None:
    engine = MiniEngine(SHAPE, "cpu", 128)
    assert len(list(engine.prefill_round(Size(8))())) == SHAPE.layers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", list(OperatorClass))
def test_every_class_runs_on_every_layer_in_every_format(
    kind: OperatorClass, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = MiniEngine(replace(SHAPE, dtype=dtype), "cpu", 256)
    made: list[torch.Tensor] = []
    every = engine._every
    monkeypatch.setattr(engine, "_every", lambda run: every(lambda layer: made.append(run(layer))))
    engine.operators(kind, Size(6, 12))()
    assert len(made) == SHAPE.layers
    assert all(row.dtype is getattr(torch, dtype) and bool(row.isfinite().all()) for row in made)


def test_what_does_not_fit_the_cache_is_refused() -> None:
    with pytest.raises(InputError, match="don't fit"):
        MiniEngine(SHAPE, "cpu", 128).operators(OperatorClass.DECODE_ATTENTION, Size(20, 100))


def test_the_counted_parameters_and_kv_bytes_are_those_that_are_there() -> None:
    engine = MiniEngine(SHAPE, "cpu", 128)
    assert sum(matrix.numel() for matrix in engine.layers[0]) == SHAPE.layer_params
    assert engine.kv.nbytes == 128 * SHAPE.kv_bytes_per_token


def test_two_cores_are_swept_as_two_sides() -> None:
    """A real sweep: two pinned processes, every class alone, and decode beside a prefill that goes on."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    design = SweepDesign(prefill=(Size(32), Size(64)), decode=(Size(2, 30), Size(4, 60)), repeats=3)
    swept = sweep(cpu_device(SHAPE, 512), SHAPE, [Split(1, 1)], design)
    assert len(swept.alone) == 8 and len(swept.beside) == 4
    assert all(0 < row.seconds < 10 and row.share == 0.5 for row in swept.alone)
    assert all(0 < row.beside_s < 10 and 0 < row.attention_part < 1 for row in swept.beside)
    with pytest.raises(InvalidMeasurement, match=r"too few shares \(1\)"):
        fit_partition(swept.alone, swept.beside, Provenance.MEASURED)


def test_a_side_s_refusal_reaches_the_sweep_and_nothing_is_left_running() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    design = SweepDesign(prefill=(Size(8),), decode=(Size(200, 30),), repeats=1)
    with pytest.raises(InputError, match="don't fit the mini-engine's cache; why: it has 16 blocks of 4"):
        sweep(cpu_device(SHAPE, 64), SHAPE, [Split(1, 1)], design)
    assert not multiprocessing.active_children()


def test_a_side_that_dies_is_said() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    with cpu_device(SHAPE, 64)(Split(1, 1)) as sides, pytest.raises(EngineError, match="died"):
        multiprocessing.active_children()[0].kill()
        for kind in OperatorClass:
            sides.alone_s(kind, Size(4, 4), 1)


def test_more_cores_than_there_are_are_refused() -> None:
    with pytest.raises(InputError, match="can't be made of"):
        sweep(cpu_device(SHAPE, 64), SHAPE, [Split(1, 4095)], SweepDesign())
