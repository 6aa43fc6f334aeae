"""A constant load with noise is repartitioned at most once; what truly changes is followed."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latency.partitions import goals, lattices, loads, models

from hgpu.core.errors import InputError
from hgpu.core.partition import Load, Split, Work
from hgpu.latency.lattice import Lattice
from hgpu.latency.partition import PartitionModel, PhaseTimes, phase_times
from hgpu.latency.partition_choice import ChoiceOptions, Goal, Unkept, choose
from hgpu.latency.repartition import Hysteresis, Reason, Running, next_goal, repartition

LOOKS = 40
PLAIN = ChoiceOptions()


def made(prefill_s: list[float], decode_s: list[float]) -> PhaseTimes:
    splits = tuple(Split(n + 1, len(prefill_s) - n) for n in range(len(prefill_s)))
    return PhaseTimes(splits, np.array(prefill_s), np.array(decode_s))


def noise(rng: np.random.Generator, size: float, shape: int) -> np.ndarray:
    """Factors in [1/(1 + size), 1 + size]; half of them at its ends, where the bound is tight."""
    exponents = np.where(rng.random(shape) < 0.5, rng.choice([-1.0, 1.0], shape), rng.uniform(-1, 1, shape))
    return np.asarray((1.0 + size) ** exponents)


def shaken(times: PhaseTimes, rng: np.random.Generator, size: float) -> PhaseTimes:
    count = len(times.splits)
    prefill_s, decode_s = noise(rng, size, count), noise(rng, size, count)
    return PhaseTimes(times.splits, times.prefill_s * prefill_s, times.decode_s * decode_s)


def shaken_load(load: Load, rng: np.random.Generator, size: float) -> Load:
    factors = iter(noise(rng, size, 8))
    works = (load.prefill_dense, load.prefill_attention, load.decode_dense, load.decode_attention)
    return Load(*(Work(work.flops * next(factors), work.bytes * next(factors)) for work in works))


def hard_times() -> st.SearchStrategy[PhaseTimes]:
    """Times within a few percent of each other and of the bounds, in no order: the hardest for a margin."""
    row = st.lists(st.floats(0.9, 1.4), min_size=6, max_size=6)
    return st.builds(made, row, row)


def hard_options() -> st.SearchStrategy[ChoiceOptions]:
    """Objectives about the least times too, so that noise decides whether any split keeps them."""
    slack, objective = st.floats(1.1, 1.4), st.one_of(st.none(), st.floats(0.85, 1.4))
    return st.builds(ChoiceOptions, slack, slack, objective, objective)


@settings(max_examples=400)
@given(hard_times(), hard_options(), goals(), st.integers(0, 5), st.floats(0.01, 0.1), st.integers(0, 2**32))
def test_noisy_predictions_of_a_constant_load_switch_at_most_once(
    times: PhaseTimes, options: ChoiceOptions, goal: Goal, start: int, margin: float, seed: int
) -> None:
    hysteresis = Hysteresis(margin)
    rng = np.random.default_rng(seed)
    running, switches = Running(times.splits[start], goal), 0
    kv_use = 0.9 if goal is Goal.DECODE else 0.1
    for _ in range(LOOKS):
        seen = shaken(times, rng, hysteresis.tolerated_time_noise * (1 - 1e-9))
        look = repartition(running, seen, kv_use, options, hysteresis)
        switches += look.running.split != running.split
        running = look.running
    assert switches <= 1


@settings(max_examples=60)
@given(st.data(), hard_options(), goals(), st.floats(0.01, 0.1), st.integers(0, 2**32))
def test_no_noise_within_the_bound_brings_a_second_switch(
    data: st.DataObject, options: ChoiceOptions, goal: Goal, margin: float, seed: int
) -> None:
    """An adversary sets the noise of all six times of three splits to either end, in every combination."""
    row = st.lists(st.floats(0.9, 1.3), min_size=3, max_size=3)
    times, hysteresis = made(data.draw(row), data.draw(row)), Hysteresis(margin)
    end = 1.0 + hysteresis.tolerated_time_noise * (1 - 1e-9)
    kv_use = 0.9 if goal is Goal.DECODE else 0.1
    looks = []
    for signs in itertools.product((-1.0, 1.0), repeat=6):
        off = end ** np.array(signs).reshape(2, 3)
        looks.append(PhaseTimes(times.splits, times.prefill_s * off[0], times.decode_s * off[1]))
    start = Running(data.draw(st.sampled_from(times.splits)), goal)
    for first in random.Random(seed).sample(looks, 4):
        after = repartition(start, first, kv_use, options, hysteresis)
        if after.reason is not None:
            for second in looks:
                assert repartition(after.running, second, kv_use, options, hysteresis).reason is None


@settings(max_examples=60)
@given(models(), loads(), lattices(), st.data(), st.integers(0, 2**32))
def test_a_noisy_constant_load_near_the_change_of_goal_switches_at_most_twice(
    model: PartitionModel, load: Load, lattice: Lattice, data: st.DataObject, seed: int
) -> None:
    """The model's times under a load that is off by what the margin tolerates, KV use by half the band."""
    hysteresis = Hysteresis(0.09, kv_upper=0.70, kv_lower=0.66)
    running = Running(data.draw(st.sampled_from(lattice.splits)), data.draw(goals()))
    kv_use = data.draw(st.floats(0.6, 0.75))
    rng = np.random.default_rng(seed)
    switches = changes = 0
    for _ in range(LOOKS):
        seen = shaken_load(load, rng, hysteresis.tolerated_load_noise * (1 - 1e-9))
        seen_use = kv_use + rng.choice([-1.0, 1.0]) * 0.0199
        look = repartition(running, phase_times(model, seen, lattice), seen_use, PLAIN, hysteresis)
        switches += look.running.split != running.split
        changes += look.running.goal is not running.goal
        running = look.running
    assert changes <= 1 and switches <= 1 + changes


@given(models(), loads(), lattices(), st.integers(0, 2**32))
def test_the_load_s_noise_moves_times_no_further_than_proved(
    model: PartitionModel, load: Load, lattice: Lattice, seed: int
) -> None:
    size = 0.05
    seen = phase_times(model, shaken_load(load, np.random.default_rng(seed), size), lattice)
    true = phase_times(model, load, lattice)
    for off in (seen.prefill_s / true.prefill_s, seen.decode_s / true.decode_s):
        assert (np.abs(np.log(off)) <= 3 * np.log(1 + size) + 1e-12).all()


@given(st.floats(0.0, 1.0))
def test_what_a_margin_tolerates_is_what_the_proof_says(margin: float) -> None:
    hysteresis = Hysteresis(margin)
    assert (1 + hysteresis.tolerated_time_noise) ** 4 == pytest.approx(1 + margin)
    assert (1 + hysteresis.tolerated_load_noise) ** 12 == pytest.approx(1 + margin)


def test_without_a_margin_the_same_noise_does_oscillate() -> None:
    """The bound isn't idle: what it forbids happens as soon as it is broken."""
    times, rng = made([1.0, 1.01, 1.0], [1.0, 1.0, 1.0]), np.random.default_rng(1)
    running, switches = Running(times.splits[0]), 0
    for _ in range(LOOKS):
        look = repartition(running, shaken(times, rng, 0.02), 0.1, PLAIN, Hysteresis(0.0))
        switches += look.running.split != running.split
        running = look.running
    assert switches > 5


@settings(max_examples=200)
@given(models(), loads(), lattices(), st.data(), goals())
def test_without_noise_the_split_ends_within_the_margin_of_the_best(
    model: PartitionModel, load: Load, lattice: Lattice, data: st.DataObject, goal: Goal
) -> None:
    """Of the splits that keep the bound with room; and over the bound by the margin at most."""
    times, hysteresis = phase_times(model, load, lattice), Hysteresis(0.05)
    start = Running(data.draw(st.sampled_from(lattice.splits)), goal)
    kv_use = 0.9 if goal is Goal.DECODE else 0.1
    look = repartition(start, times, kv_use, PLAIN, hysteresis)
    now = times.splits.index(look.running.split)
    wanted, held = times.prefill_s, times.decode_s
    slack = PLAIN.decode_slack
    if goal is Goal.DECODE:
        wanted, held, slack = held, wanted, PLAIN.prefill_slack
    assert held[now] <= held.min() * slack * 1.05 * (1 + 1e-12)
    assert wanted[now] <= wanted[held * 1.05 <= held.min() * slack].min() * 1.05 * (1 + 1e-12)
    if look.reason:
        assert look.running.split == choose(times, goal, PLAIN).split
    assert repartition(look.running, times, kv_use, PLAIN, hysteresis).reason is None


def test_a_real_change_is_followed_and_says_why() -> None:
    calm = made([4.0, 2.0, 1.0], [1.0, 1.02, 1.04])
    first = repartition(Running(calm.splits[0]), calm, 0.1, PLAIN, Hysteresis())
    assert (first.running.split, first.reason) == (calm.splits[2], Reason.GAIN)
    busy = replace(calm, decode_s=np.array([1.0, 1.05, 1.5]))
    second = repartition(first.running, busy, 0.1, PLAIN, Hysteresis())
    assert (second.running.split, second.reason) == (calm.splits[1], Reason.OVER_BOUND)


def test_a_gain_within_the_margin_moves_nothing() -> None:
    times = made([1.04, 1.0], [1.0, 1.0])
    assert repartition(Running(times.splits[0]), times, 0.1, PLAIN, Hysteresis()).reason is None


def test_a_full_cache_turns_to_decode_and_back_only_below_the_band() -> None:
    goal = Goal.PREFILL
    seen = []
    for kv_use in (0.69, 0.70, 0.66, 0.65, 0.649, 0.69):
        goal = next_goal(goal, kv_use, Hysteresis())
        seen.append(goal.value)
    assert seen == ["prefill", "decode", "decode", "decode", "prefill", "prefill"]


def test_a_running_split_that_misses_an_objective_says_so_even_where_none_is_better() -> None:
    times = made([2.0, 1.9], [1.01, 1.0])
    look = repartition(
        Running(times.splits[0]), times, 0.1, ChoiceOptions(decode_objective_s=0.5), Hysteresis()
    )
    assert look.reason is None and look.running.split == times.splits[0]
    assert look.unkept == (Unkept(Goal.DECODE, 0.5, 1.01),)


def test_an_objective_out_of_reach_still_moves_to_the_nearest_split() -> None:
    times = made([1.0, 1.0], [2.0, 1.0])
    look = repartition(
        Running(times.splits[0]), times, 0.1, ChoiceOptions(decode_objective_s=0.5), Hysteresis()
    )
    assert (look.running.split, look.reason) == (times.splits[1], Reason.OVER_BOUND)
    assert look.unkept == (Unkept(Goal.DECODE, 0.5, 1.0),)


def test_what_makes_no_sense_is_refused() -> None:
    times = made([1.0, 1.0], [1.0, 1.0])
    with pytest.raises(InputError, match="isn't one of the lattice's"):
        repartition(Running(Split(7, 9)), times, 0.1, PLAIN, Hysteresis())
    with pytest.raises(InputError, match="no room within a slack"):
        repartition(Running(times.splits[0]), times, 0.1, PLAIN, Hysteresis(0.2))
    with pytest.raises(InputError, match="KV use"):
        repartition(Running(times.splits[0]), times, 1.1, PLAIN, Hysteresis())
    with pytest.raises(InputError, match="no band"):
        Hysteresis(kv_upper=0.6, kv_lower=0.7)
    with pytest.raises(InputError, match="margin"):
        Hysteresis(-0.1)
