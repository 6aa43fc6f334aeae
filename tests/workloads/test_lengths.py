"""Named lengths against what was published, and the ad-hoc ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError, UnknownName
from hgpu.workloads.lengths import LENGTHS, find_lengths
from hgpu.workloads.marginals import Quantiles

SAMPLES = 200_000

PUBLISHED = {
    "sharegpt": ((496, 432, 970, 1367), (97, 37, 383, 474)),
    "longdata": ((5905, 5461, 9292, 9817), (180, 159, 339, 454)),
    "arxiv": ((3832, 3575, 6460, 6894), (200, 181, 357, 443)),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_mean_and_quantiles_hold(name: str, seed: int) -> None:
    for sample, (mean, *quantiles) in zip(
        find_lengths(name).sample(SAMPLES, seed), PUBLISHED[name], strict=True
    ):
        assert sample.mean() == pytest.approx(mean, rel=0.03)
        assert np.percentile(sample, [50, 95, 99]) == pytest.approx(quantiles, rel=0.03)


@pytest.mark.parametrize(
    ("name", "mean_input", "mean_output"),
    [("arena", 69.5, 214.5), ("pubmed", 3016 / 0.75, 203 / 0.75), ("mixed", 859.8, 225.8)],
)
def test_assumed_means_hold(name: str, mean_input: float, mean_output: float) -> None:
    input_tokens, output_tokens = find_lengths(name).sample(SAMPLES, seed=3)
    assert input_tokens.mean() == pytest.approx(mean_input, rel=0.03)
    assert output_tokens.mean() == pytest.approx(mean_output, rel=0.03)
    assert "assumed" in find_lengths(name).source


def test_mixed_is_one_fifth_long() -> None:
    input_tokens, _ = find_lengths("mixed").sample(SAMPLES)
    long_arena = (find_lengths("arena").sample(SAMPLES)[0] > 1000).mean()
    long_pubmed = (find_lengths("pubmed").sample(SAMPLES)[0] > 1000).mean()
    assert (input_tokens > 1000).mean() == pytest.approx(0.8 * long_arena + 0.2 * long_pubmed, abs=0.005)


@pytest.mark.parametrize("name", LENGTHS)
def test_every_distribution_is_whole_positive_seeded_and_sourced(name: str) -> None:
    lengths = LENGTHS[name]
    first, again, other = (lengths.sample(500, seed) for seed in (5, 5, 6))
    for side in (0, 1):
        assert first[side].dtype == np.int64 and first[side].min() >= 1
        assert np.array_equal(first[side], again[side])
        assert not np.array_equal(first[side], other[side])
    assert lengths.source and lengths.description
    assert [len(side) for side in lengths.sample(0)] == [0, 0]


def test_input_and_output_are_independent() -> None:
    correlation = np.corrcoef(*find_lengths("sharegpt").sample(SAMPLES))[0, 1]
    assert abs(correlation) < 0.01


def test_chat_is_sharegpt() -> None:
    assert LENGTHS["chat"] is LENGTHS["sharegpt"]


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_fixed_is_exact(inputs: int, outputs: int) -> None:
    input_tokens, output_tokens = find_lengths(f"fixed:{inputs}x{outputs}").sample(5)
    assert set(input_tokens.tolist()) == {inputs} and set(output_tokens.tolist()) == {outputs}


def test_uniform_reaches_both_ends() -> None:
    input_tokens, output_tokens = find_lengths("uniform:100-103x5-5").sample(1000)
    assert set(input_tokens.tolist()) == {100, 101, 102, 103}
    assert set(output_tokens.tolist()) == {5}


@pytest.mark.parametrize(
    "name", ["fixed:0x1", "fixed:1x0", "uniform:5-4x1-2", "uniform:0-4x1-2", "fixed:1x99999999999999999999"]
)
def test_bad_ad_hoc_lengths(name: str) -> None:
    with pytest.raises(InputError, match="bad lengths") as caught:
        find_lengths(name)
    assert "fixed:512x128" in caught.value.fix


@pytest.mark.parametrize("name", ["", "sharegtp", "fixed:512", "uniform:1-2x3", "fixed:-1x2"])
def test_unknown_name_lists_the_known(name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        find_lengths(name)
    assert "sharegpt" in caught.value.why and "fixed:INxOUT" in caught.value.why


@pytest.mark.parametrize(("n", "seed"), [(-1, 0), (1, -1)])
def test_negative_sample_or_seed(n: int, seed: int) -> None:
    with pytest.raises(InputError, match="can't sample"):
        find_lengths("arena").sample(n, seed)


def test_quantiles_that_no_distribution_has() -> None:
    with pytest.raises(ValueError, match="no shortest length"):
        _ = Quantiles(mean=10, p50=100, p95=200, p99=300).min
