import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.runtime.control.forecast import Forecaster, Smoothing, quantile

RATES = st.lists(st.floats(0.0, 1e4), min_size=1, max_size=120)


def forecast(rates: list[float], horizon: int = 4, floor: float = 0.0) -> Forecaster:
    made = Forecaster(horizon, floor)
    for rate in rates:
        made.add(rate)
    return made


def test_a_constant_load_is_forecast_as_it_is() -> None:
    made = forecast([7.0] * 100)
    assert made.point_rps == pytest.approx(7.0) and made.upper_rps == pytest.approx(7.0)


def test_the_equations_by_hand() -> None:
    made = Forecaster(2, 0.0, Smoothing(level=0.5, trend=0.5, damping=0.5))
    for rate in (4.0, 8.0):
        made.add(rate)
    # level 0.5·8 + 0.5·4 = 6, trend 0.5·(6 − 4) = 1; two steps ahead 6 + (0.5 + 0.25)·1
    assert made.point_rps == pytest.approx(6.75)


def test_a_load_that_rises_is_forecast_above_its_last_rate() -> None:
    made = forecast([10.0 + n for n in range(200)], horizon=10)
    assert made.upper_rps > 209.0


def test_bursts_that_were_seen_are_room_that_is_kept() -> None:
    """Every tenth interval has three times the rate: there is room for it, and not for twice that."""
    made = forecast([30.0 if n % 10 == 0 else 10.0 for n in range(300)], horizon=10)
    assert 29.9 <= made.upper_rps <= 60.0


def test_a_forecast_made_in_silence_makes_none_enormous() -> None:
    """Half a minute in five there are 100 requests a second, else next to none."""
    made = Forecaster(4, 0.0)
    for n in range(200):
        made.add(100.0 if n % 10 == 0 else 1e-6)
        assert made.upper_rps <= 125.0 + 1e-9
    assert made.upper_rps >= 60.0


def test_until_errors_are_known_the_planned_rate_is_a_floor() -> None:
    assert forecast([1.0] * 10, floor=5.0).upper_rps == 5.0
    assert forecast([1.0] * 100, floor=5.0).upper_rps == pytest.approx(1.0)


@given(RATES, st.integers(1, 12))
def test_forecasts_are_finite_never_negative_and_the_same_again(rates: list[float], horizon: int) -> None:
    one, other = forecast(rates, horizon), forecast(rates, horizon)
    assert 0 <= one.point_rps < 1e9 and 0 <= one.upper_rps <= max(1.25 * max(rates), one.point_rps) + 1e-9
    assert one.upper_rps == other.upper_rps


@given(RATES, st.floats(0.01, 100.0))
def test_rates_in_another_unit_give_the_same_forecast_in_that_unit(rates: list[float], factor: float) -> None:
    one, other = forecast(rates), forecast([rate * factor for rate in rates])
    assert other.upper_rps == pytest.approx(one.upper_rps * factor, abs=1e-9)


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_not_exceeded_by_its_part(values: list[float], part: float) -> None:
    found = quantile(values, part)
    assert sum(value <= found for value in values) >= part * len(values) - 1e-9
    assert sum(value < found for value in values) < part * len(values) + 1e-9
