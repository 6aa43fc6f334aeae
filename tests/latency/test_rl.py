import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.core.provenance import Provenance
from hgpu.latency.rl import pipelined_s, rollout_s, turns_s
from hgpu.latency.rl_profile import GenerationLaw, TrainingLaw, profile_of

# The example of RLinf's own test: 128 GPUs, 512 group batches, 8,192 requests, seconds measured on all GPUs.
ROLLOUT = GenerationLaw(128, 224, model_parallel=1, requests=8192, running_requests=128)
ACTOR, INFERENCE = TrainingLaw(128, 101), TrainingLaw(128, 10)


def test_the_published_example_takes_335_s_in_turns_and_289_s_on_80_32_and_16_gpus() -> None:
    readings = [ROLLOUT.at(80), INFERENCE.at(16), ACTOR.at(32)]
    assert turns_s([curve.at(128).seconds for curve in (ROLLOUT, INFERENCE, ACTOR)]) == 335  # type: ignore[union-attr]
    assert pipelined_s([reading.seconds for reading in readings if reading], 512) == pytest.approx(
        289.0957, abs=5e-5
    )


def test_a_pipeline_of_two_is_warm_up_and_the_slower_one() -> None:
    c_s, c_t, batches = 3.0, 2.0, 10
    expected = (c_s + c_t) + (batches - 1) * max(c_s, c_t)
    assert pipelined_s([c_s * batches, c_t * batches], batches) == pytest.approx(expected)


@pytest.mark.parametrize(("ratio", "gain"), [(1, 1.988), (2, 1.495), (4, 1.248), (15, 1.066)])
def test_gains_of_two_stages_are_as_published(ratio: int, gain: float) -> None:
    one = rollout_s(ratio, 1.0, steps=80)
    two = rollout_s(ratio / 2, 0.5, steps=80, stages=2)
    assert one / two == pytest.approx(gain, abs=5e-4)


def played_s(env_s: float, policy_s: float, steps: int, stages: int) -> float:
    """Play the loop: each stage alternates between two servers, who take whoever waits longest."""
    waiting: list[tuple[float, int, int]] = [
        (0.0, stage, 0) for stage in range(stages)
    ]  # ready, stage, turns
    free = [0.0, 0.0]
    end = 0.0
    heapq.heapify(waiting)
    while waiting:
        ready_s, stage, turns = heapq.heappop(waiting)
        server = turns % 2
        end = max(ready_s, free[server]) + (env_s, policy_s)[server]
        free[server] = end
        if turns + 1 < 2 * steps:
            heapq.heappush(waiting, (end, stage, turns + 1))
    return max(free)


@given(
    st.floats(0.01, 10),
    st.floats(0.01, 10),
    st.integers(1, 30),
    st.integers(1, 6),
)
def test_the_equation_is_what_a_played_loop_takes(a: float, b: float, steps: int, stages: int) -> None:
    assert rollout_s(a, b, steps, stages) == pytest.approx(played_s(a, b, steps, stages))


def test_profiles_say_what_was_measured_what_lies_between_and_nothing_outside() -> None:
    profile = profile_of({8: 10.0, 2: 40.0})
    inside = profile.at(4)
    assert inside is not None and inside.provenance is Provenance.FITTED
    assert inside.seconds == pytest.approx(20.0)  # twice the GPUs, half the time
    at = profile.at(8)
    assert at is not None and (at.seconds, at.provenance) == (10.0, Provenance.MEASURED)
    assert profile.at(1) is None and profile.at(9) is None


@given(
    st.dictionaries(st.integers(1, 100), st.floats(1e-3, 1e3), min_size=1, max_size=6), st.integers(1, 100)
)
def test_between_two_points_a_profile_stays_between_their_seconds(points: dict[int, float], x: int) -> None:
    reading = profile_of(points).at(x)
    if not min(points) <= x <= max(points):
        assert reading is None
        return
    below, above = max(p for p in points if p <= x), min(p for p in points if p >= x)
    low, high = sorted((points[below], points[above]))
    assert reading is not None and low * (1 - 1e-9) <= reading.seconds <= high * (1 + 1e-9)


@pytest.mark.parametrize("points", [{}, {0: 1.0}, {1: 0.0}, {1: float("inf")}])
def test_a_profile_without_sense_is_refused(points: dict[int, float]) -> None:
    with pytest.raises(InputError, match="seconds above zero"):
        profile_of(points)


def test_laws_speak_of_fewer_gpus_only_and_say_that_they_estimate() -> None:
    for curve in (ROLLOUT, ACTOR):
        assert curve.at(129) is None and curve.at(0) is None
        at, below = curve.at(128), curve.at(16)
        assert at is not None and at.provenance is Provenance.MEASURED
        assert below is not None and below.provenance is Provenance.ESTIMATED
