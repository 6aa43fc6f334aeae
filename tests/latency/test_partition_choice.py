"""The choice equals an exhaustive one, written again here, on random models."""

import numpy as np
import pytest
from hypothesis import given, settings
from latency.partitions import goals, lattices, loads, models, options, reference_s

from hgpu.core.errors import InputError
from hgpu.core.partition import Load, Split
from hgpu.latency.lattice import Lattice
from hgpu.latency.partition import PartitionModel, PhaseTimes, phase_times
from hgpu.latency.partition_choice import ChoiceOptions, Goal, Unkept, choose

CLOSE = 1e-9


def made(prefill_s: list[float], decode_s: list[float]) -> PhaseTimes:
    splits = tuple(Split(n + 1, len(prefill_s) - n) for n in range(len(prefill_s)))
    return PhaseTimes(splits, np.array(prefill_s), np.array(decode_s))


@settings(max_examples=400)
@given(models(), loads(), lattices(), goals(), options())
def test_the_choice_equals_exhaustive_search(
    model: PartitionModel, load: Load, lattice: Lattice, goal: Goal, options: ChoiceOptions
) -> None:
    """Two computations of a time differ by rounding, which may tip a bound: so the chosen split must keep the
    bound and a hair, and no split that keeps the bound less a hair may be faster."""
    choice = choose(phase_times(model, load, lattice), goal, options)
    rows = {}
    for split in lattice:
        prefill, decode = reference_s(model, load, split)
        rows[split] = (prefill, decode) if goal is Goal.PREFILL else (decode, prefill)
    slack = options.decode_slack if goal is Goal.PREFILL else options.prefill_slack
    objective = options.decode_objective_s if goal is Goal.PREFILL else options.prefill_objective_s
    least = min(held for _, held in rows.values())
    bound = min(slack * least, objective or float("inf"))
    wanted, held = rows[choice.split]
    surely = [w for w, h in rows.values() if h <= bound * (1 - CLOSE)]
    if bound < least * (1 - CLOSE):  # no split keeps the objective: the nearest, and it says so
        assert held <= least * (1 + CLOSE)
        assert goal.other in {row.phase for row in choice.unkept}
    elif surely:
        assert held <= bound * (1 + CLOSE)
        assert wanted <= min(surely) * (1 + CLOSE)
        assert goal.other not in {row.phase for row in choice.unkept} or held > bound * (1 - CLOSE)


@given(models(), loads(), lattices(), goals(), options())
def test_an_objective_is_named_exactly_where_it_is_missed(
    model: PartitionModel, load: Load, lattice: Lattice, goal: Goal, options: ChoiceOptions
) -> None:
    choice = choose(phase_times(model, load, lattice), goal, options)
    missed = set()
    if options.prefill_objective_s is not None and choice.prefill_s > options.prefill_objective_s:
        missed.add(Unkept(Goal.PREFILL, options.prefill_objective_s, choice.prefill_s))
    if options.decode_objective_s is not None and choice.decode_s > options.decode_objective_s:
        missed.add(Unkept(Goal.DECODE, options.decode_objective_s, choice.decode_s))
    assert set(choice.unkept) == missed


@given(models(), loads(), lattices(), goals())
def test_a_larger_slack_never_slows_the_phase_that_is_made_fast(
    model: PartitionModel, load: Load, lattice: Lattice, goal: Goal
) -> None:
    times = phase_times(model, load, lattice)
    seconds = []
    for slack in (1.0, 1.1, 1.5, 4.0):
        choice = choose(times, goal, ChoiceOptions(slack, slack))
        seconds.append(choice.prefill_s if goal is Goal.PREFILL else choice.decode_s)
    assert seconds == sorted(seconds, reverse=True)


def test_the_goal_says_which_phase_gives_way() -> None:
    times = made([4.0, 3.0, 2.0, 1.0], [1.0, 1.05, 1.2, 2.0])
    assert choose(times, Goal.PREFILL, ChoiceOptions()).split == times.splits[1]
    assert choose(times, Goal.DECODE, ChoiceOptions(prefill_slack=3.0)).split == times.splits[1]
    assert choose(times, Goal.DECODE, ChoiceOptions()).split == times.splits[3]


def test_of_equal_splits_the_other_phase_decides() -> None:
    times = made([2.0, 1.0, 1.0, 1.0], [1.0, 1.05, 1.04, 1.04])
    assert choose(times, Goal.PREFILL, ChoiceOptions()).split == times.splits[2]


def test_an_objective_that_no_split_keeps_is_named_and_the_nearest_is_taken() -> None:
    times = made([4.0, 3.0, 2.0], [1.2, 1.1, 1.5])
    choice = choose(times, Goal.PREFILL, ChoiceOptions(decode_objective_s=1.0))
    assert choice.split == times.splits[1]
    assert choice.unkept == (Unkept(Goal.DECODE, 1.0, 1.1),)


def test_the_objective_of_the_fast_phase_is_named_where_the_constraint_stands_in_its_way() -> None:
    times = made([4.0, 3.0, 2.0], [1.0, 1.05, 1.5])
    choice = choose(times, Goal.PREFILL, ChoiceOptions(prefill_objective_s=2.5))
    assert choice.split == times.splits[1]
    assert choice.unkept == (Unkept(Goal.PREFILL, 2.5, 3.0),)


@pytest.mark.parametrize(
    "bad", [{"decode_slack": 0.9}, {"prefill_slack": float("nan")}, {"decode_objective_s": 0.0}]
)
def test_what_no_split_could_keep_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="can't be kept"):
        ChoiceOptions(**bad)
