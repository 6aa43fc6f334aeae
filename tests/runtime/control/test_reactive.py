from hgpu.runtime.control.reactive import Scaler
from hgpu.simulator.elastic import PoolSeen


def seen(in_flight: int, ready: int, starting: int = 0) -> PoolSeen:
    return PoolSeen(ready, starting, in_flight, 0)


def test_the_formula() -> None:
    assert Scaler(10.0).machines(0.0, seen(70, 4)) == 7  # ceil(4 · (70/4)/10)
    assert Scaler(10.0, engines_per_machine=2).machines(0.0, seen(70, 2)) == 4


def test_within_ten_percent_nothing_changes() -> None:
    assert Scaler(10.0).machines(0.0, seen(43, 4)) == 4
    assert Scaler(10.0).machines(0.0, seen(37, 4)) == 4
    assert Scaler(10.0).machines(0.0, seen(45, 4)) == 5


def test_engines_that_start_count_as_idle() -> None:
    assert Scaler(10.0).machines(0.0, seen(70, 4, 3)) == 7


def test_at_most_four_more_or_twice_as_many() -> None:
    assert Scaler(1.0).machines(0.0, seen(900, 2)) == 6
    assert Scaler(1.0).machines(0.0, seen(900, 10)) == 20


def test_less_only_down_to_the_highest_of_five_minutes() -> None:
    scaler = Scaler(10.0)
    assert scaler.machines(0.0, seen(60, 6)) == 6
    assert [scaler.machines(15.0 * n, seen(10, 6)) for n in range(1, 21)] == [6] * 20
    assert scaler.machines(315.0, seen(10, 6)) == 1


def test_bounds_hold() -> None:
    assert Scaler(10.0, least=2, most=5).machines(0.0, seen(0, 2)) == 2
    assert Scaler(10.0, least=2, most=5).machines(0.0, seen(900, 4)) == 5
