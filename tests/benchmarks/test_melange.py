import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.core.offer import Market, Offer
from hgpu.core.operating_point import OperatingPoint
from hgpu.solvers.allocation import solve
from hgpu.solvers.problem import Column, Limit, Problem

FOLDER = Path(__file__).parents[2] / "benchmarks" / "melange"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"melange_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


published = script("published")
instances = script("instances")


def column(name: str, price: float, capacity: tuple[float, ...], gpus: int = 1) -> Column:
    offer = Offer("x", name, "r", Market.ON_DEMAND, name, gpus, price, "2026-01-01", "test")
    return Column(offer, OperatingPoint(name), capacity)


def problem(rates: tuple[float, ...], columns: list[Column]) -> Problem:
    return Problem(tuple(f"b{i}" for i in range(len(rates))), rates, tuple(columns))


def brute_force(case: Problem, slice_factor: int) -> float:
    """The cheapest assignment of slices, by trying them all."""
    slices = [(b, rate / slice_factor) for b, rate in enumerate(case.rates_rps) for _ in range(slice_factor)]
    best = float("inf")
    for chosen in itertools.product(range(len(case.columns)), repeat=len(slices)):
        if any(case.columns[g].capacity_rps[b] == 0 for g, (b, _) in zip(chosen, slices, strict=True)):
            continue
        cost = 0.0
        for g, column_ in enumerate(case.columns):
            served = [(b, rate) for to, (b, rate) in zip(chosen, slices, strict=True) if to == g]
            load = sum(rate / column_.capacity_rps[b] for b, rate in served)
            cost += -(-(load - 1e-7) // 1) * column_.offer.usd_per_hour if served else 0.0
        best = min(best, cost)
    return best


capacity = st.sampled_from([0.0, 0.7, 1.3, 2.9, 5.1])


@st.composite
def tiny(draw: st.DrawFn) -> Problem:
    buckets = draw(st.integers(1, 3))
    columns = [
        column(f"g{g}", price, tuple(draw(st.lists(capacity, min_size=buckets, max_size=buckets))))
        for g, price in enumerate(draw(st.lists(st.sampled_from([0.7, 1.01, 3.67]), min_size=1, max_size=2)))
    ]
    columns.append(column("any", 7.5, tuple(4.3 for _ in range(buckets))))
    rates = draw(st.lists(st.sampled_from([0.9, 2.3, 6.1]), min_size=buckets, max_size=buckets))
    return problem(tuple(rates), columns)


@settings(max_examples=15, deadline=None)
@given(tiny(), st.integers(1, 2))
def test_published_equals_brute_force_and_is_never_cheaper_than_hgpu(
    case: Problem, slice_factor: int
) -> None:
    packed = published.solve_published(case, slice_factor)
    assert packed.proven
    assert packed.usd_per_hour == pytest.approx(brute_force(case, slice_factor), abs=1e-6)
    assert packed.bound_usd_per_hour == packed.usd_per_hour
    assert solve(case).allocation.usd_per_hour <= packed.usd_per_hour + 1e-6


def test_a_slice_goes_whole_to_one_type_so_coarse_slices_cost_more() -> None:
    case = problem((3.0,), [column("small", 1.0, (1.2,)), column("large", 1.6, (1.8,))])
    costs = [published.solve_published(case, slice_factor).usd_per_hour for slice_factor in (1, 5)]
    assert costs == [pytest.approx(3.0), pytest.approx(2.6)]
    assert solve(case).allocation.usd_per_hour == pytest.approx(2.6)


def test_the_published_formulation_refuses_what_it_cannot_say() -> None:
    case = problem((1.0,), [column("pair", 2.0, (1.0,), gpus=2)])
    with pytest.raises(InputError, match="can't take"):
        published.solve_published(case)
    limited = Problem(("b",), (1.0,), (column("g", 1.0, (1.0,)),), (Limit("cap", {0: 1.0}, at_most=1),))
    with pytest.raises(InputError, match="can't take"):
        published.solve_published(limited)


def test_a_time_limit_leaves_a_bound_below_the_cost() -> None:
    packed = published.solve_published(instances.random_problem(60, 4, seed=1), time_limit_s=1.0)
    assert not packed.proven and 0 < packed.bound_usd_per_hour < packed.usd_per_hour


def test_instances_repeat_and_every_bucket_can_be_served() -> None:
    case = instances.random_problem(36, 10, seed=3)
    assert case == instances.random_problem(36, 10, seed=3)
    assert case != instances.random_problem(36, 10, seed=4)
    assert len(set(case.bucket_names)) == 36 and sum(case.rates_rps) == pytest.approx(32.0)
    assert all(capacity_rps > 0 for capacity_rps in case.columns[-1].capacity_rps)
    assert any(c == 0 for column_ in case.columns for c in column_.capacity_rps)


def test_no_type_dominates_in_the_papers_setting() -> None:
    """Per dollar, the cheapest type is the best for the smallest request and the dearest for the largest."""
    case = instances.random_problem(36, 4, seed=0)

    def best(bucket: int) -> int:
        worth = [c.capacity_rps[bucket] / c.offer.usd_per_hour for c in case.columns]
        return worth.index(max(worth))

    assert best(0) < best(35)


def test_caps_leave_the_type_that_serves_everything_free() -> None:
    capped = instances.with_caps(instances.random_problem(10, 4, seed=1), 1)
    pools = {pool.point.gpu: pool.machines for pool in solve(capped).allocation.pools}
    assert all(count <= 1 for gpu, count in pools.items() if gpu != "gpu3")
