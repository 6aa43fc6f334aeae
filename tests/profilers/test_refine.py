from dataclasses import astuple

import pytest

from hgpu.core.step import StepBatch
from hgpu.profilers.design import Script
from hgpu.profilers.journal import Journal, Run
from hgpu.profilers.refine import MOST_REPEATS, next_run, uncertainty

SCRIPTS = [Script("a", prefill_tokens=16), Script("b", prefill_tokens=64), Script("c", prefill_tokens=256)]


def journal(**times_s: list[float]) -> Journal:
    batch = StepBatch(*(1.0 for _ in astuple(StepBatch())))
    return Journal(
        runs=tuple(
            Run(name, repeat, ((batch, seconds),))
            for name, row in times_s.items()
            for repeat, seconds in enumerate(row)
        )
    )


def test_the_script_with_most_doubt_per_second_comes_next() -> None:
    noisy_and_cheap = journal(a=[0.10, 0.13, 0.16], b=[0.20, 0.20, 0.20], c=[2.0, 2.6, 3.2])
    assert next_run(SCRIPTS, noisy_and_cheap, 0.05, 100.0) == (SCRIPTS[0], 3)


def test_certain_samples_are_left_alone() -> None:
    quiet = journal(a=[0.1, 0.1, 0.1], b=[0.2, 0.2, 0.2], c=[2.0, 2.01, 2.02])
    assert next_run(SCRIPTS, quiet, 0.05, 100.0) is None
    assert next_run(SCRIPTS, quiet, 0.001, 100.0) == (SCRIPTS[2], 3)


def test_the_budget_covers_what_was_spent_before() -> None:
    noisy = journal(a=[0.10, 0.13, 0.16], b=[1.0, 1.5, 2.0], c=[2.0, 3.0, 4.0])
    spent = 0.39 + 4.5 + 9.0
    assert next_run(SCRIPTS, noisy, 0.05, spent + 0.2) == (SCRIPTS[0], 3)
    assert next_run(SCRIPTS, noisy, 0.05, spent) is None


def test_repeats_end_and_make_a_sample_more_certain() -> None:
    rows = [[1.0, 1.2] * count for count in (1, 2, 4, MOST_REPEATS // 2)]
    doubts = [uncertainty("a", journal(a=row).runs) for row in rows]
    assert doubts == sorted(doubts, reverse=True) and doubts[0] == pytest.approx(2 * doubts[2])
    assert next_run(SCRIPTS[:1], journal(a=rows[-1]), 0.0, 1e9) is None
