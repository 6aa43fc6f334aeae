"""Which pool a request's size leads to."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.router.routed import row

from hgpu.runtime.router.table import Table


def taken(table, times, *size, **more):
    counts = Counter(table.pools[table.order(*size, **more)[0]] for _ in range(times))
    return {name: count / times for name, count in counts.items()}


def test_a_request_goes_where_the_plan_sends_its_input():
    rows = [row({"a": 1.0}, 0, 100), row({"a": 0.25, "b": 0.75}, 100, 1000)]
    table = Table("ab", (4096, 4096), rows)
    assert taken(table, 40, 100, None) == {"a": 1.0}
    assert taken(table, 40, 100.5, None) == {"a": 0.25, "b": 0.75}
    assert taken(table, 40, 5000, None) == {"a": 0.25, "b": 0.75}  # longer than any: as the longest
    assert table.beyond(1001) and not table.beyond(1000)


def test_unknown_outputs_are_weighed_by_their_rates_and_a_limit_rules_some_out():
    rows = [
        row({"a": 1.0}, output_low=0, output_high=10, rate=3.0),
        row({"b": 1.0}, output_low=10, output_high=100, rate=1.0),
    ]
    table = Table("ab", (4096, 4096), rows)
    assert taken(table, 40, 500, None) == {"a": 0.75, "b": 0.25}
    assert taken(table, 40, 500, 11) == {"a": 0.75, "b": 0.25}
    assert taken(table, 40, 500, 10) == {"a": 1.0}


def test_a_pool_whose_engines_refuse_the_length_is_left_out():
    table = Table("ab", (1000, 4096), [row({"a": 0.5, "b": 0.5}), row({"a": 1.0}, 1000, 4000)])
    assert taken(table, 10, 500, 600) == {"b": 1.0}
    assert table.order(2000, 10) == [1]  # planned for a, which can't
    assert sorted(table.order(5000, None)) == [0, 1]  # nobody can: an engine shall say so


def test_tiers_have_routes_of_their_own_and_without_one_the_mix_counts():
    rows = [row({"a": 1.0}, tier="gold", rate=1.0), row({"b": 1.0}, tier="batch", rate=3.0)]
    table = Table("ab", (4096, 4096), rows)
    assert taken(table, 8, 10, None, tier="gold") == {"a": 1.0}
    assert taken(table, 8, 10, None) == {"a": 0.25, "b": 0.75}


def test_buckets_with_names_only_share_out_all_requests():
    rows = [
        one.model_copy(update=dict.fromkeys(("input_low", "input_high", "output_low", "output_high")))
        for one in (row({"a": 1.0}, rate=1.0), row({"b": 1.0}, rate=1.0))
    ]
    table = Table("ab", (4096, 4096), rows)
    assert taken(table, 10, 123, None) == {"a": 0.5, "b": 0.5}
    assert not table.beyond(10**9)


SHARES = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(lambda s: sum(s) > 0.1)


@given(st.lists(st.tuples(SHARES, st.floats(0.1, 10)), min_size=1, max_size=4), st.integers(1, 200))
def test_no_pool_is_ever_a_request_ahead_of_its_share(cells, requests):
    rows = [
        row({n: s / sum(shares) for n, s in zip("abc", shares, strict=True)}, output_low=10 * i, rate=rate)
        for i, (shares, rate) in enumerate(cells)
    ]
    table = Table("abc", (4096,) * 3, rows)
    total = sum(one.rate_rps for one in rows)
    expected = {n: sum(one.rate_rps * one.shares[n] for one in rows) / total for n in "abc"}
    counts = Counter()
    for number in range(1, requests + 1):
        order = table.order(500, None)
        assert sorted(order) == [0, 1, 2]
        counts[table.pools[order[0]]] += 1
        for name, share in expected.items():
            assert abs(counts[name] - number * share) < 1 + 1e-6


@pytest.mark.parametrize("pools", ["a", "abc"])
def test_a_plan_without_routing_shares_out_evenly(pools):
    table = Table(pools, (4096,) * len(pools), [])
    assert taken(table, 3 * len(pools), 10, None) == dict.fromkeys(pools, pytest.approx(1 / len(pools)))
