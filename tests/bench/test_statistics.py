from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hgpu.artifacts.payloads.comparison import Effect
from hgpu.bench.resampling import resampled_mean, resampled_quantile, resampled_share
from hgpu.bench.statistics import arm_mean, difference, holm, more_runs


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_a_redrawn_quantile_has_the_law_of_all_possible_samples(q: float) -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0])
    every = np.array([np.quantile(rows, q) for rows in product(values, repeat=4)])
    drawn = resampled_quantile(values[::-1], q, 200_000, rng())
    for point in np.unique(every):
        assert np.mean(drawn <= point + 1e-9) == pytest.approx(np.mean(every <= point + 1e-9), abs=0.005)
    assert drawn.mean() == pytest.approx(every.mean(), rel=0.01)


def test_redrawn_means_and_shares_have_their_known_variance() -> None:
    values = rng(1).exponential(size=300)
    means = resampled_mean(values, 20_000, rng())
    assert means.mean() == pytest.approx(values.mean(), rel=0.01)
    assert means.var() == pytest.approx(values.var() / 300, rel=0.05)
    shares = resampled_share(90, 300, 20_000, rng())
    assert shares.mean() == pytest.approx(0.3, rel=0.01)
    assert shares.var() == pytest.approx(0.3 * 0.7 / 300, rel=0.05)


def test_means_of_long_runs_are_drawn_in_chunks_that_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hgpu.bench.resampling.CHUNK", 64)
    assert resampled_mean(np.arange(30.0), 101, rng()).shape == (101,)


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.9, 0.001], [1.0, 1.0, 0.003]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ],
)
def test_holm_against_cases_worked_by_hand(ps: list[float], corrected: list[float]) -> None:
    assert holm(ps) == pytest.approx(corrected)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_its_step_down_rule_rejects(ps: list[float], level: float) -> None:
    ordered, rejected = sorted(ps), 0
    while rejected < len(ps) and ordered[rejected] * (len(ps) - rejected) <= level:
        rejected += 1
    assert sum(p <= level for p in holm(ps)) == rejected


def made(values: list[float], within: float, seed: int = 0, n: int = 500):  # type: ignore[no-untyped-def]
    redrawn = [value + within * rng(seed + i).normal(size=n) for i, value in enumerate(values)]
    return arm_mean(values, redrawn, 40_000, rng(seed))


@pytest.mark.parametrize("within", [0.0, 0.001, 0.03, 0.3])
def test_the_interval_of_points_is_students_whatever_the_requests_add(within: float) -> None:
    base, head = [0.90, 0.93, 0.91, 0.92, 0.94], [0.95, 0.99, 0.96, 0.97, 0.93]
    found = difference(made(base, within, 1), made(head, within, 99), Effect.POINTS)
    known = stats.ttest_ind(head, base, equal_var=False).confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx((known.low, known.high), abs=0.003)
    assert found.change == pytest.approx(np.mean(head) - np.mean(base))


def test_the_interval_of_a_ratio_is_that_of_logarithms() -> None:
    base, head = [1.00, 1.02, 0.99, 1.01, 0.98], [1.10, 1.13, 1.09, 1.12, 1.08]
    found = difference(made(base, 0.01, 1), made(head, 0.01, 99), Effect.RATIO)
    known = stats.ttest_ind(np.log(head), np.log(base), equal_var=False).confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx((np.expm1(known.low), np.expm1(known.high)), abs=0.003)


@pytest.mark.parametrize("tolerance", [0.02, 0.05, 0.08, 0.2])
def test_p_agrees_with_the_interval(tolerance: float) -> None:
    base, head = [1.00, 1.02, 0.99, 1.01, 0.98], [1.10, 1.13, 1.09, 1.12, 1.08]
    found = difference(made(base, 0.01, 1), made(head, 0.01, 99), Effect.RATIO)
    p = found.p_beyond(tolerance)
    if p == 1.0:
        assert abs(found.change) <= tolerance
        return
    assert found.interval(1 - 2 * p * 1.01)[0] > tolerance >= found.interval(1 - 2 * p * 0.99)[0]


def test_equal_runs_leave_nothing_to_chance() -> None:
    found = difference(made([1.0] * 3, 0.0), made([1.2] * 3, 0.0), Effect.RATIO)
    assert found.certain and found.p_beyond(0.05) < 1e-6 and found.p_beyond(0.3) == 1.0
    assert found.interval(0.9) == pytest.approx((0.2, 0.2))


def test_a_head_of_zero_is_a_ratio_of_zero() -> None:
    found = difference(made([5.0, 5.1, 4.9], 0.0), made([0.0] * 3, 0.0), Effect.RATIO)
    assert found.change == pytest.approx(-1.0, abs=1e-5)
    assert found.p_beyond(0.03) < 1e-3


def test_runs_that_are_missing_are_about_as_many_as_it_takes() -> None:
    base, head = [1.0, 1.05, 0.95, 1.02, 0.98], [1.02, 1.07, 0.97, 1.04, 1.00]
    few = difference(made(base, 0.0), made(head, 0.0, 1), Effect.RATIO)
    wanted = more_runs(few, 0.05, 0.9, 5)
    assert wanted is not None
    times = (5 + wanted) / 5
    many = difference(made(base * round(times), 0.0), made(head * round(times), 0.0, 1), Effect.RATIO)
    assert few.interval(0.9)[1] > 0.05 and many.interval(0.9)[1] <= 0.055
    on_the_edge = difference(made([1.0, 1.2, 0.8], 0.0), made([1.05, 1.25, 0.85], 0.0, 1), Effect.POINTS)
    assert more_runs(on_the_edge, 0.05 + 1e-9, 0.9, 3) is None


def test_the_same_seed_gives_the_same_answer_and_another_a_close_one() -> None:
    values = [1.0, 1.1, 0.95]
    assert np.array_equal(made(values, 0.1, 3).resampled, made(values, 0.1, 3).resampled)
    one, other = (made(values, 0.1, seed).resampled for seed in (3, 4))
    assert not np.array_equal(one, other) and one.std() == pytest.approx(other.std(), rel=0.05)
