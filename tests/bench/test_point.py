"""A point's figures, what kept the objectives, and what makes it void."""

from dataclasses import replace

import numpy as np
import pytest

from hgpu.artifacts.payloads.load import LoadPoint
from hgpu.bench.arrivals import Load, Schedule
from hgpu.bench.outcomes import Outcomes, merged
from hgpu.bench.point import Rules, load_point
from hgpu.core.slo import Objective, Slo

COUNT = 100
LOAD = Load("constant", 10.0, 0, 10.0)
INTENDED_S = np.arange(COUNT) / 10
PLAN = Schedule(INTENDED_S, np.full(COUNT, 8), np.full(COUNT, 5), 10.0)


def made(
    ttft_s: object = 0.2, tpot_s: float = 0.01, lag_s: float = 0.0, errors: tuple[int, ...] = ()
) -> Outcomes:
    first_s = INTENDED_S + ttft_s
    return Outcomes(
        np.arange(COUNT),
        INTENDED_S,
        INTENDED_S + lag_s,
        first_s,
        first_s + 4 * tpot_s,
        np.full(COUNT, 8),
        np.full(COUNT, 5),
        np.full(COUNT, tpot_s),
        tuple("HTTP 429: busy" if number in errors else "" for number in range(COUNT)),
        np.full(4 * COUNT, tpot_s),
    )


def point(outcomes: Outcomes, **rules: object) -> LoadPoint:
    return load_point(LOAD, "10 rps", PLAN, outcomes, Rules(**rules))


def test_figures_are_those_of_the_requests() -> None:
    found = point(made(lag_s=0.004))
    assert found.ttft_s.mean == pytest.approx(0.2) and found.ttft_from_send_s.mean == pytest.approx(0.196)
    assert found.tpot_s.p99 == pytest.approx(0.01) and found.e2e_s.p50 == pytest.approx(0.24)
    assert found.achieved_rps == pytest.approx(10) and found.target_rps == 10
    assert found.output_tokens == 500 and found.output_tok_per_s == pytest.approx(500 / 10.136, rel=1e-3)
    assert found.harness_lag_p99_s == pytest.approx(0.004) and found.validity.valid


def test_goodput_counts_what_kept_every_objective_and_failures_keep_none() -> None:
    slo = Slo(ttft=Objective(0.3, 90), tpot=Objective(0.02, 90))
    ttft_s = np.where(np.arange(COUNT) < 20, 0.4, 0.2)
    found = point(made(ttft_s, errors=(0, 50)), slo=slo, max_error_rate=0.05)
    assert found.attainment == pytest.approx({"ttft": 0.79, "tpot": 0.98, "all": 0.79})
    assert found.goodput_rps == pytest.approx(7.9) and found.error_kinds == {"HTTP 429": 2}
    assert found.validity.valid


@pytest.mark.parametrize(
    ("outcomes", "rules", "told"),
    [
        (made(errors=(3, 4)), {}, "2 of 100 requests failed; the first: HTTP 429: busy"),
        (made(errors=tuple(range(COUNT))), {"max_error_rate": 1.0}, "100 of 100"),
        (made(0.2, lag_s=0.021), {}, "21.0 ms late at p99; 20.0 ms are allowed"),
        (made(2.0, lag_s=0.051), {}, "50.0 ms are allowed"),
        (made(0.001, lag_s=0.0055), {}, "5.0 ms are allowed"),
        (made(0.2, lag_s=0.004), {"max_lag_s": 0.003}, "3.0 ms are allowed"),
    ],
)
def test_a_point_is_void_for_a_reason(outcomes: Outcomes, rules: dict[str, object], told: str) -> None:
    found = point(outcomes, **rules)
    assert not found.validity.valid and any(told in reason for reason in found.validity.reasons)


def test_a_harness_that_falls_behind_voids_the_point() -> None:
    slow = replace(made(), sent_s=INTENDED_S * 1.1)
    assert any("9.1 requests/s were sent" in reason for reason in point(slow).validity.reasons)


def test_workers_parts_merge_by_request() -> None:
    whole = made(np.linspace(0.1, 0.3, COUNT), errors=(7,))

    def part(share: int) -> Outcomes:
        names = [name for name in Outcomes.__slots__ if name not in ("error", "gaps_s")]
        columns = {name: getattr(whole, name)[share::3] for name in names}
        return Outcomes(**columns, error=whole.error[share::3], gaps_s=whole.gaps_s[share::3])

    found = merged([part(2), part(0), part(1)])
    assert found.error == whole.error and np.array_equal(found.ttft_s, whole.ttft_s)
    assert point(found) == point(whole)
