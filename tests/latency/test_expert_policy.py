"""The decisions of an expert cache: what they must always hold, and where one can be worked out by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.core.experts import ExpertCache, ExpertPolicy, Prefetch
from hgpu.latency.expert_hints import hints_of, recall
from hgpu.latency.expert_policy import Counts, LayerCache, by_votes, pinned_of
from hgpu.latency.expert_replay import replay, replay_belady
from hgpu.latency.routing import RoutingTrace

EXPERTS, PER_TOKEN = 12, 3
KEPT = (ExpertPolicy.LRU, ExpertPolicy.LFU, ExpertPolicy.PINNED_LFU)


@st.composite
def traces(draw: Any, layers: int = 2, most_tokens: int = 6) -> RoutingTrace:
    """Steps of a few tokens, whose experts are skewed to the lower numbers."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, most_tokens), min_size=1, max_size=25))
    weights = 1.0 / np.arange(1, EXPERTS + 1)
    ids = [
        [random.choice(EXPERTS, PER_TOKEN, replace=False, p=weights / weights.sum()) for _ in range(layers)]
        for _ in range(sum(sizes))
    ]
    steps = np.repeat(np.arange(len(sizes)), sizes)
    tokens = random.integers(0, 5, sum(sizes))
    array = np.array(ids, np.int32)
    return RoutingTrace(EXPERTS, array, steps, tokens, np.zeros(sum(sizes), bool), array)


def carried_out(cache: LayerCache, steps: Sequence[Any]) -> Counts:
    """Copy as the cache says, and check that each token is computed once, by the experts it needs."""
    device = [-1] * cache.slots
    counts = Counts()
    for load in cache.preloads:
        device[load.slot] = load.expert
    for ids in steps:
        counts.steps += 1
        counts.tokens += len(ids)
        done: list[int] = []
        for group in cache.access(ids):
            needed = {int(expert) for expert in ids[group.tokens].ravel()}
            place = {load.expert: load.slot for load in group.loads}
            if group.wide:
                place |= {load.expert: load.expert for load in group.here}
                assert all(device[load.slot] == load.expert for load in group.here)
                assert place == {expert: expert for expert in needed}
                counts.wide_groups += 1
            else:
                for load in group.loads:
                    device[load.slot] = load.expert
                assert all(device[cache.slot_of[expert]] == expert for expert in needed)
            counts.groups += 1
            counts.needs += len(needed)
            counts.misses += len(group.loads)
            counts.hits += len(needed) - len(group.loads)
            done += group.tokens.tolist()
        assert sorted(done) == list(range(len(ids)))
    return counts


@given(traces(), st.sampled_from(ExpertPolicy), st.integers(PER_TOKEN, EXPERTS), st.booleans())
def test_each_token_is_computed_once_by_its_experts(
    trace: RoutingTrace, policy: ExpertPolicy, slots: int, wide: bool
) -> None:
    ranking = hints_of(trace).ranking[0].tolist()
    pinned = pinned_of(ranking, slots, PER_TOKEN, policy)
    cache = LayerCache(EXPERTS, PER_TOKEN, slots, policy, pinned, wide)
    counted = carried_out(cache, list(trace.each_step(0)))
    assert cache.counts == counted
    assert all(cache.slot_of[expert] == slot for slot, expert in enumerate(pinned))
    if wide:
        assert counted.groups == counted.steps


@given(traces(most_tokens=1), st.integers(PER_TOKEN, EXPERTS))
def test_no_policy_loads_less_than_the_one_that_knows_the_future(trace: RoutingTrace, slots: int) -> None:
    best = replay_belady(trace, slots).total
    for policy in ExpertPolicy:
        played = replay(trace, slots, policy, hints_of(trace))
        pinned = slots - PER_TOKEN if policy in (ExpertPolicy.STATIC, ExpertPolicy.PINNED_LFU) else 0
        assert best.misses <= played.total.misses + trace.layers * pinned  # those were loaded before
    assert replay(trace, slots, ExpertPolicy.ON_DEMAND).total.hits == 0


@given(traces(), st.sampled_from(KEPT))
def test_with_a_slot_an_expert_each_is_loaded_once(trace: RoutingTrace, policy: ExpertPolicy) -> None:
    played = replay(trace, EXPERTS, policy, hints_of(trace))
    assert played.total.groups == trace.layers * len(trace.bounds)
    used = sum(len(np.unique(trace.ids[:, layer])) for layer in range(trace.layers))
    assert played.total.misses <= used
    if policy is not ExpertPolicy.PINNED_LFU:
        assert played.total.misses == used


@given(traces(most_tokens=2), st.sampled_from(ExpertPolicy))
def test_what_was_predicted_rightly_is_there(trace: RoutingTrace, policy: ExpertPolicy) -> None:
    """The gate's prediction is the truth in these traces: nothing that fits is waited for."""
    played = replay(trace, 2 * PER_TOKEN, policy, hints_of(trace), Prefetch.NEXT_GATE, wide=True)
    pinning = policy in (ExpertPolicy.STATIC, ExpertPolicy.PINNED_LFU)
    assert pinning or played.total.misses == 0
    assert (played.misses.sum(), played.ahead.sum()) == (played.total.misses, played.total.prefetched)
    assert played.total.prefetch_hits <= played.total.prefetched


def one_layer(rows: Sequence[Sequence[int]], experts: int = 4) -> RoutingTrace:
    ids = np.array(rows, np.int32)[:, None, :]
    count = len(rows)
    return RoutingTrace(experts, ids, np.arange(count), np.arange(count), np.zeros(count, bool))


def test_the_least_used_and_the_least_recent_differ() -> None:
    """Expert 0 is used twice, then 1, then 2 comes into two slots: LFU keeps 0, LRU keeps 1; then 0 comes."""
    trace = one_layer([[0], [0], [1], [2], [0]])
    assert replay(trace, 2, ExpertPolicy.LFU).misses.ravel().tolist() == [1, 0, 1, 1, 0]
    assert replay(trace, 2, ExpertPolicy.LRU).misses.ravel().tolist() == [1, 0, 1, 1, 1]
    assert replay(trace, 2, ExpertPolicy.ON_DEMAND).misses.ravel().tolist() == [1, 1, 1, 1, 1]


def test_a_static_cache_keeps_the_hottest_and_nothing_else() -> None:
    trace = one_layer([[3], [3], [3], [1], [1], [3]])
    played = replay(trace, 2, ExpertPolicy.STATIC, hints_of(trace))
    assert played.misses.ravel().tolist() == [0, 0, 0, 1, 1, 0]
    pinned = replay(trace, 2, ExpertPolicy.PINNED_LFU, hints_of(trace))
    assert pinned.misses.ravel().tolist() == [0, 0, 0, 1, 0, 0]


def test_the_table_knows_what_followed_from_a_token_and_recall_counts_the_unknown() -> None:
    ids = np.array([[[0, 1]], [[0, 2]], [[0, 2]], [[3, 1]]], np.int32)
    trace = RoutingTrace(4, ids, np.arange(4), np.array([7, 7, 7, 1]), np.zeros(4, bool))
    hints = hints_of(trace, vocab=9)
    assert hints.of_tokens(np.array([7, 1, 2, 30]), 0).tolist() == [[0, 2], [1, 3], [-1, -1], [-1, -1]]
    assert recall(hints.of_tokens(np.array([7, 2]), 0), np.array([[0, 3], [0, 1]], np.int32)) == 0.25
    assert hints.ranking[0].tolist() == [0, 1, 2, 3]
    assert by_votes(np.array([[0, 2], [2, -1]], np.int32)) == [2, 0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"slots": 2}, "2 slots for 12 experts"),
        ({"slots": 13}, "13 slots for 12 experts"),
        ({"pinned": (1,), "policy": ExpertPolicy.LRU}, "pins nothing"),
        ({"pinned": (1, 2, 3)}, "3 experts can't be pinned in 5 slots"),
        ({"pinned": (1, 1)}, "distinct"),
        ({"pinned": (12,)}, "distinct"),
    ],
)
def test_what_no_cache_can_be_is_refused(change: dict[str, Any], says: str) -> None:
    good = {"slots": 5, "policy": ExpertPolicy.PINNED_LFU, "pinned": ()}
    LayerCache(EXPERTS, PER_TOKEN, **good)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        LayerCache(EXPERTS, PER_TOKEN, **{**good, **change})
    assert says in f"{caught.value.what} {caught.value.why}"


def test_a_replay_without_what_it_needs_is_refused() -> None:
    trace = one_layer([[0], [1]])
    for words in ((ExpertPolicy.STATIC,), (ExpertPolicy.LRU, None, Prefetch.TOKEN)):
        with pytest.raises(InputError):
            replay(trace, 2, *words)
    with pytest.raises(InputError, match="next gate"):
        replay(trace, 2, ExpertPolicy.LRU, None, Prefetch.NEXT_GATE)
    with pytest.raises(InputError):
        RoutingTrace(4, trace.ids, trace.steps[::-1], trace.tokens, trace.prefill)
    with pytest.raises(InputError):
        RoutingTrace(1, trace.ids, trace.steps, trace.tokens, trace.prefill)


def test_slots_follow_from_the_fraction() -> None:
    assert [ExpertCache(part).slots(32, 4) for part in (0.125, 0.25, 0.26, 1.0)] == [4, 8, 9, 32]
    with pytest.raises(InputError, match="3 slots a layer can't hold the 4 experts"):
        ExpertCache(0.09).slots(32, 4)
    for part in (0.0, 1.1):
        with pytest.raises(InputError):
            ExpertCache(part)
    assert ExpertCache(0.125, ExpertPolicy.LRU, Prefetch.TOKEN).name == "12.5% lru+token"
