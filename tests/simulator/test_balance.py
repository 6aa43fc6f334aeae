from random import Random

import pytest

from hgpu.core.errors import UnknownName
from hgpu.core.operating_point import EngineOptions
from hgpu.core.provenance import Provenance
from hgpu.core.step import LatencyModel, StepModel
from hgpu.simulator.balance import BALANCERS, balancer_of
from hgpu.simulator.engine import Engine

# A step takes a second, whatever is in it.
UNIT = LatencyModel(StepModel(1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0), 4000, 0, 0, 0, Provenance.FITTED)


def engines(count: int) -> list[Engine]:
    return [Engine(UNIT, EngineOptions()) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "looked_at"), [("round_robin", 0), ("power_of_two", 2), ("least_requests", 100)]
)
def test_only_the_engines_that_a_policy_looks_at_are_advanced(name: str, looked_at: int) -> None:
    pool = engines(100)
    balancer_of(name, Random(0)).pick(pool, 5.0)
    assert sum(engine.until_s == 5.0 for engine in pool) == looked_at


@pytest.mark.parametrize("name", BALANCERS)
def test_every_engine_gets_its_turn_and_a_lone_engine_all(name: str) -> None:
    balancer, pool = balancer_of(name, Random(0)), engines(3)
    for _ in range(30):
        pool[balancer.pick(pool, 0.0)].give(0.0, 10, 10)
    assert all(engine.in_flight(0.0) > 5 for engine in pool)
    assert {balancer_of(name, Random(0)).pick(pool[:1], 0.0) for _ in range(3)} == {0}


@pytest.mark.parametrize("name", ["power_of_two", "least_requests"])
def test_of_two_engines_the_emptier_takes_it_once_its_work_has_ended(name: str) -> None:
    """The first holds a request until 4 s, the second two until 2 s: then the second is the emptier."""
    for seed in range(20):
        balancer, pool = balancer_of(name, Random(seed)), engines(2)
        pool[0].give(0.0, 5, 4)
        pool[1].give(0.0, 5, 2)
        pool[1].give(0.0, 5, 2)
        assert [balancer.pick(pool, now_s) for now_s in (0.0, 1.5, 2.0, 3.9)] == [0, 0, 1, 1]


def test_an_unknown_policy_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="round_robin"):
        balancer_of("roundrobin", Random(0))
