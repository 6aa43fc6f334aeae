import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_types import MELANGE_TOY as TOY

from hgpu.core.errors import Infeasible, InputError
from hgpu.core.offer import Market, Offer
from hgpu.core.operating_point import OperatingPoint
from hgpu.solvers.allocation import only_gpu, solve
from hgpu.solvers.melange import read_melange
from hgpu.solvers.problem import Column, Limit, Problem


def column(name: str, price: float, capacity: tuple[float, ...], gpus: int = 1) -> Column:
    offer = Offer("x", name, "r", Market.ON_DEMAND, name, gpus, price, "2026-01-01", "test")
    return Column(offer, OperatingPoint(name), capacity)


def problem(rates: tuple[float, ...], columns: list[Column], *limits: Limit) -> Problem:
    return Problem(tuple(f"b{i}" for i in range(len(rates))), rates, tuple(columns), limits)


def cost(case: Problem) -> float:
    return solve(case).allocation.usd_per_hour


def brute_force(case: Problem, most: int = 4) -> float:
    """The cheapest counts for which the shares (a transport problem, solved as a small LP) exist."""
    from scipy.optimize import linprog

    best = float("inf")
    for counts in itertools.product(range(most + 1), repeat=len(case.columns)):
        price = sum(n * c.offer.usd_per_hour for n, c in zip(counts, case.columns, strict=True))
        if price >= best or not _limits_hold(case, counts):
            continue
        cells = [
            (b, c)
            for b in range(len(case.rates_rps))
            for c in range(len(counts))
            if case.columns[c].capacity_rps[b] > 0
        ]
        if not cells:
            continue
        serve = [[1.0 if cell[0] == b else 0.0 for cell in cells] for b in range(len(case.rates_rps))]
        load = [
            [case.rates_rps[b] / case.columns[c].capacity_rps[b] if c == number else 0.0 for b, c in cells]
            for number in range(len(counts))
        ]
        room = [n * col.engines_per_machine for n, col in zip(counts, case.columns, strict=True)]
        if linprog([0.0] * len(cells), A_ub=load, b_ub=room, A_eq=serve, b_eq=[1.0] * len(serve)).status == 0:
            best = price
    return best


def _limits_hold(case: Problem, counts: tuple[int, ...]) -> bool:
    for limit in case.limits:
        total = sum(weight * counts[c] for c, weight in limit.weights.items())
        if limit.at_most is not None and total > limit.at_most:
            return False
        if limit.at_least is not None and total < limit.at_least:
            return False
    return True


def test_the_toy_of_the_melange_release_costs_4_68_with_continuous_shares(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(TOY))
    case = read_melange(path)
    solution = solve(case)
    assert solution.allocation.usd_per_hour == pytest.approx(4.68)
    assert {p.point.gpu: p.machines for p in solution.allocation.pools} == {"A10G": 1, "A100-80GB": 1}
    assert solution.gap == 0 and solution.status == "optimal"
    assert cost(only_gpu(case, "A10G")) == pytest.approx(12.12)
    assert cost(only_gpu(case, "A100-80GB")) == pytest.approx(7.34)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"total_request_rate": 0}, "total_request_rate"),
        ({"total_request_rate": "x"}, "total_request_rate"),
        ({"workload_distribution": [[0.2, 0.1], [0.5]]}, "tputs of A10G"),
        ({"workload_distribution": [[0.2, 0.1], [0.5, 0.9]]}, "sums to 1.7"),
        ({"gpu_info": {"A10G": {"cost": -1, "tputs": [[1, 1], [1, 1]]}}}, "gpu_info.A10G.cost"),
        ({"gpu_info": {"A10G": {"cost": 1, "tputs": [[-1, 1], [1, 1]]}}}, "tputs"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_bad_melange_file_names_the_field(tmp_path: Path, change: dict[str, object], field: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**TOY, **change}))
    with pytest.raises(InputError) as caught:
        read_melange(path)
    assert field in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_no_melange_file_is_a_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_melange(path)
    with pytest.raises(InputError):
        read_melange(tmp_path / "none.json")


def test_zero_throughput_forbids_a_bucket_instead_of_dividing_by_zero() -> None:
    case = problem((1.0, 1.0), [column("cheap", 1.0, (10.0, 0.0)), column("dear", 5.0, (10.0, 10.0))])
    allocation = solve(case).allocation
    pools = [pool.point.gpu for pool in allocation.pools]
    assert allocation.shares[1][pools.index("dear")] == 1.0


def test_a_bucket_that_nobody_serves_is_infeasible_with_its_name() -> None:
    with pytest.raises(Infeasible, match="b1") as caught:
        solve(problem((1.0, 1.0), [column("cheap", 1.0, (10.0, 0.0))]))
    assert caught.value.exit_code == 3


def test_limits_that_forbid_every_answer_are_named() -> None:
    cap = Limit("cheap: 1", {0: 1.0}, at_most=1)
    other = Limit("dear: 100", {0: 1.0}, at_most=100)
    with pytest.raises(Infeasible) as caught:
        solve(problem((30.0,), [column("cheap", 1.0, (10.0,))], cap, other))
    assert "cheap: 1" in caught.value.why and "dear: 100 alone" not in caught.value.why


def test_a_machine_is_rented_whole_and_its_engines_all_serve() -> None:
    eight = column("eight", 8.0, (1.0,), gpus=8)
    assert cost(problem((8.0,), [eight])) == pytest.approx(8.0)
    assert cost(problem((8.1,), [eight])) == pytest.approx(16.0)


def test_a_count_just_below_an_integer_is_not_cut_off() -> None:
    """The published release truncates 2.9999 to 2."""
    case = problem((30.0,), [column("a", 1.0, (10.0,))])
    assert solve(case).allocation.pools[0].machines == 3


CASES = st.integers(1, 3).flatmap(
    lambda buckets: st.tuples(
        st.lists(st.floats(0.1, 6.0), min_size=buckets, max_size=buckets),
        st.lists(
            st.tuples(
                st.floats(0.5, 9.0),
                st.lists(st.one_of(st.just(0.0), st.floats(1.0, 12.0)), min_size=buckets, max_size=buckets),
                st.sampled_from([1, 1, 2]),
            ),
            min_size=1,
            max_size=3,
        ),
    )
)


def built(case: tuple[list[float], list[tuple[float, list[float], int]]]) -> Problem:
    rates, rows = case
    return problem(
        tuple(rates), [column(f"g{i}", round(p, 3), tuple(c), g) for i, (p, c, g) in enumerate(rows)]
    )


@settings(max_examples=40, deadline=None)
@given(CASES, st.integers(1, 4))
def test_small_cases_equal_brute_force(
    case: tuple[list[float], list[tuple[float, list[float], int]]], cap: int
) -> None:
    base = built(case)
    limit = Limit("cap", dict.fromkeys(range(len(base.columns)), 1.0), at_most=cap)
    limited = Problem(base.bucket_names, base.rates_rps, base.columns, (limit,))
    expected = brute_force(limited)
    try:
        found = cost(limited)
    except Infeasible:
        found = float("inf")
    assert found == pytest.approx(expected, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(CASES, st.floats(1.0, 3.0))
def test_more_load_never_costs_less_and_order_never_matters(
    case: tuple[list[float], list[tuple[float, list[float], int]]], factor: float
) -> None:
    base = built(case)
    try:
        now = cost(base)
    except Infeasible:
        return
    more = Problem(base.bucket_names, tuple(r * factor for r in base.rates_rps), base.columns)
    assert cost(more) >= now - 1e-6
    turned = Problem(
        base.bucket_names[::-1],
        base.rates_rps[::-1],
        tuple(
            column(c.offer.gpu, c.offer.usd_per_hour, c.capacity_rps[::-1], c.offer.gpu_count)
            for c in base.columns[::-1]
        ),
    )
    assert cost(turned) == pytest.approx(now, rel=1e-6)
    extra = Problem(
        base.bucket_names, base.rates_rps, (*base.columns, column("new", 3.0, (5.0,) * len(base.rates_rps)))
    )
    assert cost(extra) <= now + 1e-6


@settings(max_examples=30, deadline=None)
@given(CASES)
def test_every_request_is_served_and_no_engine_is_overfull(
    case: tuple[list[float], list[tuple[float, list[float], int]]],
) -> None:
    base = built(case)
    try:
        solution = solve(base)
    except Infeasible:
        return
    for row in solution.allocation.shares:
        assert sum(row) == pytest.approx(1.0)
    for pool in solution.allocation.pools:
        assert pool.load_engines <= pool.engines * (1 + 1e-6)
    assert solution.bound_usd_per_hour <= solution.allocation.usd_per_hour + 1e-9


def by_hand(case: Problem) -> Problem:
    """The problem with one bucket of rate 1 for each group: what an engine spends on all of it."""
    groups = list(dict.fromkeys(case.alike))
    columns = []
    for c in case.columns:
        spent = dict.fromkeys(groups, 0.0)
        for rate, capacity, group in zip(case.rates_rps, c.capacity_rps, case.alike, strict=True):
            spent[group] += rate / capacity if capacity else float("inf")
        capacities = tuple(1 / spent[group] for group in groups)
        columns.append(column(c.offer.gpu, c.offer.usd_per_hour, capacities, c.offer.gpu_count))
    return problem((1.0,) * len(groups), columns)


@settings(max_examples=40, deadline=None)
@given(CASES, st.lists(st.sampled_from(["short", "long"]), min_size=3, max_size=3))
def test_buckets_that_a_router_cant_tell_apart_are_shared_out_alike(
    case: tuple[list[float], list[tuple[float, list[float], int]]], groups: list[str]
) -> None:
    free = built(case)
    bound = replace(free, alike=tuple(groups[: len(free.rates_rps)]))
    expected = brute_force(by_hand(bound), most=6)
    try:
        solution = solve(bound)
    except Infeasible:
        assert expected == float("inf")
        return
    if expected < float("inf"):  # within the counts that brute force tries
        assert solution.allocation.usd_per_hour == pytest.approx(expected, rel=1e-6)
    assert solution.allocation.usd_per_hour >= cost(free) - 1e-6
    rows = dict(zip(bound.alike, solution.allocation.shares, strict=True))
    assert all(rows[g] == row for g, row in zip(bound.alike, solution.allocation.shares, strict=True))
    for number, pool in enumerate(solution.allocation.pools):
        capacity = next(c.capacity_rps for c in bound.columns if c.offer == pool.offer)
        load = sum(
            rate * row[number] / capacity[b]
            for b, (rate, row) in enumerate(zip(bound.rates_rps, solution.allocation.shares, strict=True))
            if row[number] > 0
        )
        assert load == pytest.approx(pool.load_engines, abs=1e-6)
