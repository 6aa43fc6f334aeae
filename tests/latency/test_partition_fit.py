"""Known roofs and a known contention are found again in noisy sweeps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.core.errors import InvalidMeasurement
from hgpu.core.partition import Load, OperatorClass, Split, Work
from hgpu.core.provenance import Provenance
from hgpu.latency.lattice import Lattice
from hgpu.latency.partition import PartitionModel, Roof, Roofs
from hgpu.latency.partition_fit import fit_class, fit_contention, fit_partition
from hgpu.latency.roof_fit import fit_roof
from hgpu.profilers.partition_samples import ContentionSample, ShareSample

HOPPER = Lattice(132, 8, 8)
DENSE = [Work(1.6e10 * n, 1.6e10) for n in (16, 64, 128, 256, 512, 2048)]
READS = [Work(4e9 * n, 1e9 * n) for n in (1, 2, 4, 8)]
BOTH = Roofs(Roof(9e14, 0.6, 0.3), Roof(8e12, 0.35, 0.05))
KIND = OperatorClass.PREFILL_DENSE


def seconds(roofs: Roofs, work: Work, share: float) -> float:
    compute_s = work.flops / roofs.compute.rate(share) if roofs.compute else 0.0
    memory_s = work.bytes / roofs.memory.rate(share) if roofs.memory else 0.0
    return float(max(compute_s, memory_s))


def sweep(
    roofs: Roofs, works: list[Work], noise: float, seed: int, kind: OperatorClass = KIND
) -> list[ShareSample]:
    rng = np.random.default_rng(seed)
    return [
        ShareSample(kind, share, work, seconds(roofs, work, share) * rng.lognormal(0, noise))
        for share in (split.prefill_share for split in HOPPER)
        for work in works
    ]


def beside(contention: float, noise: float, seed: int) -> list[ContentionSample]:
    """Runs whose bytes and parts are drawn, with the paper's formula as in docs/pd.md."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(40):
        own, attention, dense = rng.uniform(1e9, 2e10, 3)
        part, alone_s = rng.uniform(0, 0.6), rng.uniform(1e-3, 1e-2)
        fair = part * own / (own + attention) + (1 - part) * own / (own + dense)
        load = Load(Work(1e13, dense), Work(1e12, attention), Work(1e12, 1.6e10), Work(1e10, own))
        beside_s = alone_s / (1 - contention + contention * fair)
        rows.append(ContentionSample(load, part, alone_s, beside_s * rng.lognormal(0, noise)))
    return rows


@settings(max_examples=60)
@given(st.floats(0.1, 0.8), st.floats(0.0, 0.8), st.floats(1e9, 1e15))
def test_a_roof_without_noise_is_found_again(saturation: float, decay: float, per_s: float) -> None:
    true = Roof(per_s, saturation, decay)
    shares = np.array([split.prefill_share for split in HOPPER])
    found = fit_roof(shares, true.rate(shares))
    assert found.rate(shares) == pytest.approx(true.rate(shares), rel=1e-5)
    assert found.saturation == pytest.approx(saturation, abs=1e-3)
    assert found.decay == pytest.approx(decay, abs=1e-2)


def test_a_rate_that_never_saturates_says_so() -> None:
    shares = np.linspace(0.1, 0.9, 9)
    found = fit_roof(shares, 5.0 * shares)
    assert (found.saturation, found.decay) == (1.0, 1.0) and found.per_s == pytest.approx(5.0)


@pytest.mark.parametrize("seed", range(5))
def test_noisy_rows_of_both_roofs_are_told_apart(seed: int) -> None:
    fit = fit_class(KIND, sweep(BOTH, DENSE, 0.02, seed))
    compute, memory = fit.roofs.compute, fit.roofs.memory
    assert compute is not None and memory is not None
    assert compute.per_s == pytest.approx(9e14, rel=0.03) and memory.per_s == pytest.approx(8e12, rel=0.03)
    assert compute.saturation == pytest.approx(0.6, abs=0.05) and memory.saturation == pytest.approx(
        0.35, abs=0.03
    )
    assert compute.decay == pytest.approx(0.3, abs=0.12) and memory.decay == pytest.approx(0.05, abs=0.05)
    assert 0.005 < fit.median_error < 0.03 and fit.median_error < fit.p90_error < 0.08


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("roofs", [Roofs(BOTH.compute, None), Roofs(None, BOTH.memory)])
def test_a_roof_that_never_binds_is_not_made_up(roofs: Roofs, seed: int) -> None:
    found = fit_class(KIND, sweep(roofs, DENSE, 0.02, seed)).roofs
    assert (found.compute is None, found.memory is None) == (roofs.compute is None, roofs.memory is None)


def test_where_the_times_can_not_tell_decode_is_bound_by_memory_and_prefill_by_compute() -> None:
    reads = Roofs(None, BOTH.memory)
    decode = OperatorClass.DECODE_ATTENTION
    assert fit_class(decode, sweep(reads, READS, 0.02, 1, decode)).roofs.compute is None
    assert fit_class(KIND, sweep(reads, READS, 0.02, 1)).roofs.memory is None


def test_noise_shows_in_the_error() -> None:
    quiet, loud = (fit_class(KIND, sweep(BOTH, DENSE, noise, 3)).median_error for noise in (0.0, 0.05))
    assert quiet < 1e-6 and 0.02 < loud < 0.08


@pytest.mark.parametrize("contention", [0.2, 0.6, 1.0])
def test_contention_is_found_again(contention: float) -> None:
    fit = fit_contention(beside(contention, 0.02, 7))
    assert fit.unbounded == pytest.approx(contention, abs=0.03)
    assert 0 <= fit.contention <= 1 and fit.median_error < 0.03


def test_contention_beyond_its_bounds_is_kept_within_and_shown() -> None:
    rows = [
        ContentionSample(s.load, s.attention_part, s.alone_s, s.alone_s * 0.99) for s in beside(0.5, 0, 1)
    ]
    fit = fit_contention(rows)
    assert fit.contention == 0.0 and fit.unbounded < 0 and fit.median_error == pytest.approx(0.01, rel=0.02)


def test_a_whole_model_is_found_again() -> None:
    true = PartitionModel(
        {
            OperatorClass.PREFILL_DENSE: BOTH,
            OperatorClass.PREFILL_ATTENTION: Roofs(Roof(5e14, 0.8, 0.5), None),
            OperatorClass.DECODE_DENSE: Roofs(Roof(6e14, 0.5, 0.1), Roof(1e13, 0.3, 0.02)),
            OperatorClass.DECODE_ATTENTION: Roofs(None, Roof(9e12, 0.4, 0.1)),
        },
        contention=0.7,
    )
    rows = [
        row
        for seed, (kind, roofs) in enumerate(true.roofs.items())
        for row in sweep(roofs, READS if kind is OperatorClass.DECODE_ATTENTION else DENSE, 0.02, seed, kind)
    ]
    fit = fit_partition(rows, beside(0.7, 0.02, 2), Provenance.MEASURED)
    assert fit.provenance is Provenance.FITTED
    load = Load(Work(3e13, 1.6e10), Work(2e12, 1e9), Work(1e12, 1.6e10), Work(6e10, 1.5e10))
    for split in (Split(112, 20), Split(64, 68), Split(16, 116)):
        expected = true.phases_s(load, split.prefill_share, split.decode_share)
        found = fit.model.phases_s(load, split.prefill_share, split.decode_share)
        assert found == pytest.approx(expected, rel=0.03)
    assert fit_partition(rows, beside(0.7, 0.02, 2), Provenance.SIMULATED).provenance is Provenance.SIMULATED


def test_the_order_of_samples_does_not_matter() -> None:
    rows = sweep(BOTH, DENSE, 0.02, 4)
    there, back = fit_class(KIND, rows).roofs, fit_class(KIND, rows[::-1]).roofs
    assert there.compute is not None and back.compute is not None
    assert there.compute.per_s == pytest.approx(back.compute.per_s, rel=1e-6)


def test_what_can_not_be_fitted_is_refused() -> None:
    rows = sweep(BOTH, DENSE, 0.0, 1)
    few = sorted({row.share for row in rows})[:4]
    with pytest.raises(InvalidMeasurement, match=r"too few shares \(4\)"):
        fit_class(KIND, [row for row in rows if row.share in few])
    with pytest.raises(InvalidMeasurement, match=r"too few shares \(0\)"):
        fit_partition(rows, [], Provenance.MEASURED)
    with pytest.raises(InvalidMeasurement, match="row that can't be"):
        fit_class(KIND, [*rows, ShareSample(KIND, 0.5, DENSE[0], 0.0)])
    with pytest.raises(InvalidMeasurement, match="no contention"):
        fit_contention([])
    tiny = Load(Work(1, 1), Work(1, 1), Work(1, 1), Work(1, 1000))
    with pytest.raises(InvalidMeasurement, match="no contention"):
        fit_contention([ContentionSample(tiny, 0.2, 1.0, 1.1)])
