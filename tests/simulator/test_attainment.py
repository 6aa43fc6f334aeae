import numpy as np
import pytest

from hgpu.core.slo import Objective, Slo
from hgpu.simulator.attainment import attainment
from hgpu.simulator.result import RequestTimes

# TTFT 1, 2, 3, 4 s; TPOT none, 1, 2, 1 s; end to end 1, 3, 7, 8 s.
SERVED = RequestTimes(
    arrival_s=np.array([0.0, 1.0, 2.0, 3.0]),
    start_s=np.array([0.0, 2.0, 3.0, 4.0]),
    first_token_s=np.array([1.0, 3.0, 5.0, 7.0]),
    end_s=np.array([1.0, 4.0, 9.0, 11.0]),
    output_tokens=np.array([1, 2, 3, 5], np.int64),
)


def test_a_limit_is_kept_by_those_on_it_and_a_single_token_has_no_tpot_to_miss() -> None:
    made = attainment(SERVED, 4, Slo(Objective(2.0, 50), Objective(1.0, 80), Objective(7.0, 75)))
    assert [(row.name, row.share, row.met) for row in made.objectives] == [
        ("ttft", 0.5, True),
        ("tpot", 0.75, False),
        ("e2e", 0.75, True),
    ]
    assert made.goodput_share == 0.5 and not made.met


def test_the_rejected_count_as_missed() -> None:
    made = attainment(SERVED, 8, Slo(ttft=Objective(9.0, 50.1)))
    assert [row.share for row in made.objectives] == [0.5] and made.goodput_share == 0.5
    assert not made.met


def test_absent_objectives_do_not_bind() -> None:
    made = attainment(SERVED, 4, Slo(e2e=Objective(1.0, 25)))
    assert len(made.objectives) == 1 and made.met
    assert made.goodput_share == pytest.approx(0.25)
