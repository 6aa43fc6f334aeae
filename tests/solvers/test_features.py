"""What else a plan keeps to: whole machines, spot floors, spares, budgets, changes, shared limits."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solvers.cases import column, cost, engines, offer, problem

from hgpu.core.errors import Infeasible
from hgpu.core.offer import Market
from hgpu.solvers.allocation import solve
from hgpu.solvers.packing import machines_of
from hgpu.solvers.problem import Limit, Problem, Unit


def test_engines_of_several_degrees_share_a_machine() -> None:
    """One engine on 4 GPUs for the long bucket and 4 on one GPU each for the short one: one machine of 8."""
    eight = offer("a-8", 8.0, gpus=8)
    case = problem((4.0, 1.0), [column(eight, 1.0, 0.0), column(eight, 0.0, 1.0, tp=4)])
    solution = solve(case)
    assert solution.allocation.usd_per_hour == 8.0
    assert [(pool.point.tp, pool.engines, pool.usd_per_hour) for pool in solution.allocation.pools] == [
        (1, 4, 4.0),
        (4, 1, 4.0),
    ]
    assert cost(replace(case, rates_rps=(5.0, 1.0))) == 16.0


def test_engines_that_are_wider_than_what_is_left_need_another_machine() -> None:
    """Six GPUs hold one engine of 4, not one and a half."""
    six = offer("a-6", 6.0, gpus=6)
    case = problem((1.0, 3.0), [column(six, 1.0, 0.0), column(six, 0.0, 1.0, tp=4)])
    assert cost(case) == 18.0


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(0, 9)), min_size=1, max_size=4))
def test_packing_wastes_no_gpu_that_a_narrower_engine_could_use(kinds: list[tuple[int, int]]) -> None:
    hosts = machines_of(kinds, 8)
    gpus = sum(size * count for size, count in kinds)
    assert max(hosts) <= -(-gpus // 8)
    assert all((count > 0) == (host > 0) for (_, count), host in zip(kinds, hosts, strict=True))


def test_spot_machines_serve_no_more_of_a_bucket_than_allowed() -> None:
    cheap, dear = offer("a-spot", 1.0, market=Market.SPOT), offer("a-od", 3.0)
    case = problem((10.0,), [column(cheap, 1.0), column(dear, 1.0)])
    assert cost(case) == 10.0
    assert cost(replace(case, preemptible_shares=(0.5,))) == 5 * 1.0 + 5 * 3.0
    assert cost(replace(case, preemptible_shares=(0.0,))) == 30.0


def test_reserved_machines_are_paid_for_and_so_used_first() -> None:
    reserved, rented = offer("a-res", 2.0, market=Market.RESERVED, available=3), offer("a-od", 1.0)
    cap = Limit("reserved: 3", {0: 1.0}, at_most=3)
    case = problem((2.0,), [column(reserved, 1.0), column(rented, 1.0)], cap)
    allocation = solve(case).allocation
    assert engines(case) == {"a-res a": 2}
    assert (allocation.usd_per_hour, allocation.idle_usd_per_hour) == (6.0, 2.0)
    assert cost(replace(case, rates_rps=(5.0,))) == 6.0 + 2.0


def spared(case: Problem) -> Problem:
    return replace(case, columns=tuple(replace(column, spare_machines=1) for column in case.columns))


def test_each_pool_carries_its_load_with_a_machine_lost() -> None:
    case = problem((2.0,), [column(offer("a-2", 2.0, gpus=2), 1.0)])
    assert engines(case) == {"a-2 a": 2}
    allocation = solve(spared(case)).allocation
    assert [(pool.engines, pool.machines) for pool in allocation.pools] == [(4, 2)]
    assert all(pool.load_engines <= pool.engines - 2 + 1e-6 for pool in allocation.pools)


def test_a_pool_that_isnt_used_needs_no_spare() -> None:
    case = problem((1.0,), [column(offer("a", 1.0), 1.0), column(offer("b", 5.0), 1.0)])
    assert engines(spared(case)) == {"a a": 2}


def test_a_budget_buys_as_much_of_the_mix_as_it_can() -> None:
    case = problem((3.0, 3.0), [column(offer("a", 1.0), 1.0, 0.5)])
    whole = cost(case)
    assert whole == 9.0
    bought = solve(replace(case, budget_usd_per_hour=4.5))
    assert bought.served == pytest.approx(4 / 9, rel=1e-5) and bought.allocation.usd_per_hour == 4.0
    assert solve(replace(case, budget_usd_per_hour=18.0)).served == pytest.approx(2.0, rel=1e-5)


def test_a_budget_that_buys_nothing_names_the_least_that_buys_something() -> None:
    columns = [column(offer("a", 1.013), 1.0, 0.5), column(offer("b", 0.2), 0.0, 9.0)]
    case = problem((3.0, 3.0), columns)
    with pytest.raises(Infeasible, match=r"0.5 USD/h buy nothing") as refused:
        solve(replace(case, budget_usd_per_hour=0.5))
    assert "costs 1.01 USD/h" in refused.value.why and "budget_usd_per_hour to 1.02" in refused.value.fix
    assert solve(replace(case, budget_usd_per_hour=1.02)).served > 0


def test_where_limits_leave_a_budget_nothing_to_buy_the_limit_is_named() -> None:
    none = Limit("gpus: 0", {0: 1.0}, at_most=0.0)
    case = problem((3.0,), [column(offer("a", 1.0), 1.0)], none, budget_usd_per_hour=5.0)
    with pytest.raises(Infeasible, match="limits") as refused:
        solve(case)
    assert "raise 'gpus: 0' to 3" in refused.value.fix


@settings(max_examples=30, deadline=None)
@given(st.floats(1.0, 30.0), st.floats(1.0, 2.0))
def test_a_larger_budget_never_buys_less(budget: float, factor: float) -> None:
    columns = [column(offer("a", 1.0), 1.0, 0.4), column(offer("b", 2.7), 2.0, 2.5)]
    case = problem((2.0, 3.0), columns, budget_usd_per_hour=budget)
    more = solve(replace(case, budget_usd_per_hour=budget * factor)).served
    assert more >= solve(case).served * (1 - 1e-5)


def test_a_change_has_its_price() -> None:
    columns = [column(offer("a", 1.0), 1.0), column(offer("b", 1.1), 1.0)]
    running = problem((5.0,), columns, running={1: 5})
    assert engines(running) == {"a a": 5}
    assert engines(replace(running, change_usd_per_hour=0.1)) == {"b b": 5}
    assert engines(replace(running, change_usd_per_hour=0.01)) == {"a a": 5}


def test_services_share_a_limit() -> None:
    cheap, dear = offer("a", 1.0), offer("b", 3.0)
    columns = [
        column(cheap, 1.0, 0.0, service="one"),
        column(dear, 1.0, 0.0, service="one"),
        column(cheap, 0.0, 1.0, service="two"),
        column(dear, 0.0, 2.0, service="two"),
    ]
    cap = Limit("a: 3", {0: 1.0, 2: 1.0}, at_most=3)
    solution = solve(problem((2.0, 2.0), columns, cap))
    assert solution.allocation.usd_per_hour == 2 * 1.0 + 1 * 3.0
    assert {(r.service, r.offer.gpu): r.machines for r in solution.allocation.rentals} == {
        ("one", "a"): 2,
        ("two", "b"): 1,
    }


def test_a_least_number_of_engines_counts_engines_not_machines() -> None:
    case = problem((0.1,), [column(offer("a-4", 4.0, gpus=4), 1.0)])
    least = Limit("min_engines: 3", {0: 1.0}, at_least=3, unit=Unit.ENGINES)
    assert cost(replace(case, limits=(least,))) == 4.0


def test_infeasible_limits_say_what_they_would_have_to_be() -> None:
    cap = Limit("a: 2", {0: 1.0}, at_most=2)
    with pytest.raises(Infeasible) as caught:
        solve(problem((5.0,), [column(offer("a", 1.0), 1.0)], cap))
    assert "'a: 2' to 5" in caught.value.fix
    least = Limit("min_engines: 9", {0: 1.0}, at_least=9, unit=Unit.ENGINES)
    with pytest.raises(Infeasible) as caught:
        solve(problem((5.0,), [column(offer("a", 1.0), 1.0)], Limit("a: 6", {0: 1.0}, at_most=6), least))
    assert "raise 'a: 6' to 9" in caught.value.fix and "lower 'min_engines: 9' to 6" in caught.value.fix


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.2, 5.0), min_size=2, max_size=2), st.integers(1, 6), st.sampled_from([0, 1]))
def test_a_cap_never_lowers_the_cost_nor_does_a_spare(rates: list[float], cap: int, spares: int) -> None:
    columns = [column(offer("a", 1.0), 1.0, 0.3), column(offer("b-2", 2.5, gpus=2), 1.0, 1.5)]
    bare = problem(tuple(rates), columns)
    free = spared(bare) if spares else bare
    limit = Limit("a", {0: 1.0}, at_most=cap)
    assert cost(replace(free, limits=(limit,))) >= cost(free) - 1e-6
    assert cost(free) >= cost(bare) - 1e-6


def test_the_load_is_levelled_over_pools_of_one_cost() -> None:
    """One engine of each is needed; the bucket that both can serve goes where there is room."""
    columns = [column(offer("a", 1.0), 10.0, 10.0), column(offer("b", 0.9), 0.0, 10.0)]
    solution = solve(problem((4.0, 8.0), columns, Limit("a: 1", {0: 1.0}, at_most=1)))
    assert [round(pool.utilization, 6) for pool in solution.allocation.pools] == [0.6, 0.6]


def test_a_million_requests_a_second_are_many_machines_not_an_error() -> None:
    case = problem((1e6,), [column(offer("a", 0.7), 2.5), column(offer("b-8", 40.0, gpus=8), 20.0)])
    assert cost(case) == pytest.approx(250_000.0, rel=1e-6)
