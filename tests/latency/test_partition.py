from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from latency.partitions import lattices, loads, models, reference_s

from hgpu.catalog.models import load_model
from hgpu.core.errors import InputError
from hgpu.core.partition import Load, OperatorClass, Work
from hgpu.core.step import StepBatch, prefill_batch
from hgpu.latency.lattice import Lattice
from hgpu.latency.operators import load_of
from hgpu.latency.partition import PartitionModel, Roof, Roofs, flat, phase_times

LLAMA = load_model("meta-llama/Llama-3.1-8B")
DECODES = StepBatch(decode_seqs=64, decode_context_tokens=64 * 2000)
PROMPTS = prefill_batch(2048)


def simple(contention: float) -> PartitionModel:
    """One FLOP or byte a second, memory at any share: the arithmetic can be done by hand."""
    return PartitionModel(
        {kind: Roofs(Roof(1.0, 0.5, 0.2), flat(1.0)) for kind in OperatorClass}, contention=contention
    )


HAND = Load(Work(90, 10), Work(30, 30), Work(10, 20), Work(5, 40))


def test_a_split_by_hand() -> None:
    """Half and half: compute at 0.5/s. Prefill 180 + 60 s, a quarter of it attention; decode attention gets
    1/4 · 40/70 + 3/4 · 40/50 of the bandwidth."""
    prefill_s, decode_s = simple(1.0).phases_s(HAND, 0.5, 0.5)
    assert prefill_s == pytest.approx(240)
    assert decode_s == pytest.approx(20 + 40 / (0.25 * 40 / 70 + 0.75 * 40 / 50))


def test_beyond_saturation_the_rate_grows_by_the_decay_only() -> None:
    roof = Roof(100.0, 0.4, 0.25)
    assert roof.rate(0.2) == pytest.approx(20) and roof.rate(0.4) == pytest.approx(40)
    assert roof.rate(1.0) == pytest.approx(100 * (0.4 + 0.25 * 0.6))


def test_no_contention_leaves_decode_all_bandwidth() -> None:
    _, decode_s = simple(0.0).phases_s(HAND, 0.5, 0.5)
    assert decode_s == pytest.approx(20 + 40)


def test_a_flat_roof_is_the_same_for_one_sm_and_for_all() -> None:
    assert flat(3.0).rate(1 / 300) == pytest.approx(3.0) == flat(3.0).rate(1.0)


@given(models(), loads(), lattices())
def test_all_splits_at_once_equal_one_at_a_time(model: PartitionModel, load: Load, lattice: Lattice) -> None:
    times = phase_times(model, load, lattice)
    expected = np.array([reference_s(model, load, split) for split in lattice])
    assert times.splits == lattice.splits
    assert times.prefill_s == pytest.approx(expected[:, 0], rel=1e-9)
    assert times.decode_s == pytest.approx(expected[:, 1], rel=1e-9)


@given(models(), loads(), lattices())
def test_more_units_never_slow_prefill_and_contention_never_speeds_decode(
    model: PartitionModel, load: Load, lattice: Lattice
) -> None:
    times = phase_times(model, load, lattice)
    assert (np.diff(times.prefill_s) <= 1e-12 * times.prefill_s[1:]).all()
    alone = phase_times(replace(model, contention=0.0), load, lattice)
    assert (times.decode_s >= alone.decode_s * (1 - 1e-12)).all()


def test_decode_is_not_monotone_in_its_share() -> None:
    """Why the choice looks at every split: prefill's attention saturates early here and reads little, its
    dense part doesn't and reads much, so more for prefill leaves decode's attention more bandwidth."""
    model = PartitionModel(
        {
            OperatorClass.PREFILL_DENSE: Roofs(Roof(100.0), None),
            OperatorClass.PREFILL_ATTENTION: Roofs(Roof(100.0, 0.05, 0.0), None),
            OperatorClass.DECODE_DENSE: Roofs(None, flat(1.0)),
            OperatorClass.DECODE_ATTENTION: Roofs(None, flat(1.0)),
        }
    )
    load = Load(Work(100, 100), Work(10, 1), Work(1, 1), Work(1, 10))
    assert (np.diff(phase_times(model, load, Lattice(132, 8, 8)).decode_s) < 0).all()


def test_the_load_of_a_model() -> None:
    load = load_of(LLAMA, PROMPTS, DECODES)
    assert load.prefill_dense.flops == pytest.approx(2048 * LLAMA.flops_per_token)
    assert load.decode_dense == Work(64 * LLAMA.flops_per_token, LLAMA.step_weight_bytes(64))
    assert load.decode_attention.bytes == pytest.approx(128_000 * LLAMA.kv_bytes(1))
    assert load.prefill_attention.bytes == pytest.approx(2048 * LLAMA.kv_bytes(1))
    halves = load_of(LLAMA, PROMPTS, DECODES, tp=2)
    for kind in OperatorClass:
        assert halves.of(kind).flops == pytest.approx(load.of(kind).flops / 2)
        assert halves.of(kind).bytes == pytest.approx(load.of(kind).bytes / 2)


@pytest.mark.parametrize(
    ("prefill", "decode"),
    [(PROMPTS, StepBatch()), (StepBatch(), DECODES), (DECODES, PROMPTS), (PROMPTS, PROMPTS)],
)
def test_a_device_with_one_phase_needs_no_split(prefill: StepBatch, decode: StepBatch) -> None:
    with pytest.raises(InputError, match="single phase"):
        load_of(LLAMA, prefill, decode)


@given(st.sampled_from([0.0, -1.0, float("nan"), float("inf")]))
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="no roof"):
        Roof(rate)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InputError, match="without a roof"):
        Roofs(None, None)
    roofs = Roofs(Roof(1.0), None)
    with pytest.raises(InputError, match="decode-attention"):
        PartitionModel(dict.fromkeys(list(OperatorClass)[:3], roofs))
    with pytest.raises(InputError, match=r"contention 1\.5"):
        PartitionModel(dict.fromkeys(OperatorClass, roofs), contention=1.5)
    with pytest.raises(InputError, match="no work"):
        Work(-1.0, 0.0)
    with pytest.raises(InputError, match="matrix multiplications"):
        Load(Work(1, 1), Work(1, 1), Work(0, 0), Work(1, 1))
