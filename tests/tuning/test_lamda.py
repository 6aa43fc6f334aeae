"""LaMDA's core: factors, schedule, counts as published, and the ranks of LaMDA++."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linears import linears

from hgpu.core.errors import InputError
from hgpu.latency.training_counts import lamda_count, lora_count
from hgpu.tuning.lamda import (
    Init,
    allocate_ranks,
    decompose,
    energy,
    frozen_columns,
)

LLAMA2_7B = [*[(4096, 4096)] * 3, (11008, 4096), (4096, 11008)] * 32  # q, k, v, up, down
DEBERTA_V3_BASE = [*[(768, 768)] * 4, (3072, 768), (768, 3072)] * 12  # q, k, v, o, intermediate, output


def drawn(out: int, inner: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((out, inner)).astype(np.float32)


@pytest.mark.parametrize("init", list(Init))
def test_the_adapted_map_starts_as_the_plain_one(init: Init) -> None:
    weight = drawn(24, 40)
    factors = decompose(weight, 6, init)
    start = factors.residual(weight) + factors.b @ factors.s @ factors.a
    np.testing.assert_allclose(start, weight, atol=1e-5)
    assert (factors.a.shape, factors.s.shape, factors.b.shape) == ((6, 40), (6, 6), (24, 6))


def test_the_spectral_factors_are_the_best_of_their_rank() -> None:
    weight = drawn(30, 20)
    residual = decompose(weight, 5).residual(weight)
    sigma = np.linalg.svd(weight, compute_uv=False)
    assert np.square(residual).sum() == pytest.approx(np.square(sigma[5:]).sum(), rel=1e-4)


def test_the_balanced_start_is_the_spectral_one_with_values_around_one() -> None:
    weight = 7 * drawn(24, 40)
    balanced, spectral = decompose(weight, 6, Init.BALANCED), decompose(weight, 6, Init.SPECTRAL)
    np.testing.assert_allclose(balanced.anchor, spectral.anchor, rtol=1e-5, atol=1e-4)
    assert np.diag(balanced.s).mean() == pytest.approx(1) and np.diag(spectral.s).mean() > 10
    assert np.linalg.norm(spectral.b, axis=0) == pytest.approx(np.ones(6))


def test_a_weight_of_zeros_has_factors_that_are_numbers() -> None:
    factors = decompose(np.zeros((8, 9), dtype=np.float32), 3)
    assert np.isfinite(factors.b).all() and not factors.anchor.any()


def test_the_zero_start_leaves_the_base_alone() -> None:
    weight = drawn(10, 12)
    factors = decompose(weight, 4, Init.ZERO)
    assert not factors.s.any() and np.array_equal(factors.residual(weight), weight)
    np.testing.assert_allclose(factors.a @ factors.a.T, np.eye(4), atol=1e-5)


def test_the_randomized_factors_span_what_the_exact_ones_do() -> None:
    weight = drawn(60, 12) @ np.diag(np.logspace(0, -2, 12)).astype(np.float32) @ drawn(12, 80, seed=1)
    exact, near = decompose(weight, 4), decompose(weight, 4, iterations=4)
    np.testing.assert_allclose(near.anchor @ near.a, exact.anchor @ exact.a, atol=1e-2 * np.abs(weight).max())


@pytest.mark.parametrize("rank", [0, 11])
def test_a_rank_that_does_not_fit_is_refused(rank: int) -> None:
    with pytest.raises(InputError, match=f"rank {rank} doesn't fit"):
        decompose(drawn(10, 12), rank)


@given(st.integers(1, 32), st.integers(1, 40), st.integers(1, 10))
def test_columns_freeze_once_each_and_half_are_trained_on_average(half: int, tens: int, tenths: int) -> None:
    """The mean that the counts promise is what the schedule gives (for even ranks, as ties are rounded)."""
    rank, eta, steps = 2 * half, tenths / 10, tens * 10
    frozen = [frozen_columns(step, steps, rank, eta) for step in range(steps + 1)]
    assert frozen == sorted(frozen) and frozen[-1] == rank
    assert sum(rank - count for count in frozen[:steps]) / steps == pytest.approx(eta * rank / 2)


def test_all_of_b_is_trained_first_and_none_after_the_early_steps() -> None:
    assert frozen_columns(0, 1000, 32, 0.3) == 0
    assert frozen_columns(299, 1000, 32, 0.3) == frozen_columns(300, 1000, 32, 0.3) == 32
    assert frozen_columns(0, 1000, 32, 0.0) == 32
    with pytest.raises(InputError, match=r"eta 1\.5"):
        frozen_columns(0, 10, 4, 1.5)


def test_the_published_counts_of_llama2_7b() -> None:
    trained = lamda_count(linears(LLAMA2_7B), 32, 0.3)
    assert (trained.final, trained.peak - trained.final) == (163_840, 28_049_408)
    assert round(trained.mean) == 4_371_251
    assert lora_count(linears(LLAMA2_7B), 16).peak == 28_049_408


def test_the_published_counts_of_deberta() -> None:
    """The head's 1,536 are trained by both; 17.6 to 17.7 times fewer, with or without it in LoRA's count."""
    lora, head = lora_count(linears(DEBERTA_V3_BASE), 8).peak, 1_536
    final = lamda_count(linears(DEBERTA_V3_BASE), 32, 0.3).final
    assert (lora, final, final + head) == (1_327_104, 73_728, 75_264)
    assert round(lora / (final + head), 1) == 17.6 and round((lora + head) / (final + head), 1) == 17.7


def test_energy_grows_to_one() -> None:
    sigma = np.array([3.0, 2.0, 1.0])
    assert [energy(sigma, rank) for rank in (1, 2, 3)] == pytest.approx([9 / 14, 13 / 14, 1.0])


def test_flat_spectra_get_more_rank() -> None:
    steep, flat = np.logspace(0, -4, 64), np.ones(64)
    assert allocate_ranks({"steep": steep, "flat": flat}, 20) == {"flat": 32, "steep": 8}
    assert allocate_ranks({"steep": steep, "flat": flat}, 8) == {"flat": 8, "steep": 8}


@given(st.lists(st.integers(8, 80), min_size=1, max_size=12), st.floats(8, 70))
def test_ranks_keep_the_mean_and_the_sides_and_waste_nothing(sides: list[int], mean_rank: float) -> None:
    spectra = {f"w{number}": np.linspace(1, 0.1, side) for number, side in enumerate(sides)}
    ranks = allocate_ranks(spectra, mean_rank)
    spare = mean_rank * len(ranks) - sum(ranks.values())
    assert spare >= 0
    for name, rank in ranks.items():
        assert rank in (8, 16, 32, 64) and rank <= len(spectra[name])
        higher = 2 * rank
        assert higher > 64 or higher > len(spectra[name]) or rank > spare, "a rank could still be raised"


def test_a_mean_below_the_smallest_rank_is_refused() -> None:
    with pytest.raises(InputError, match="mean rank of 4 is too small"):
        allocate_ranks({"w": np.ones(64)}, 4)
    with pytest.raises(InputError, match="doesn't fit w"):
        allocate_ranks({"w": np.ones(6)}, 16)
