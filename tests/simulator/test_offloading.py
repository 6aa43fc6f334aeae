"""Steps that copy experts, against sums by hand and against the predicted step times."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.core.copies import ExpertCopies
from hgpu.core.experts import ExpertCache, ExpertPolicy, Prefetch
from hgpu.latency.expert_loads import Routing, routing_of, step_loads
from hgpu.latency.expert_replay import replay
from hgpu.latency.rebatch import by_sequence, rebatched
from hgpu.latency.routing import RoutingTrace
from hgpu.simulator.offloading import CopyEngine, Speeds, Steps, offloaded_steps

LAYERS, EXPERTS, EACH = 6, 16, 2
SPEEDS = Speeds(overhead_s=0.5, layer_s=2.0, copy_s=1.0, here_s=0.125)


def routing(seed: int, tokens: int = 1200) -> Routing:
    """Made routing: a token's experts are its own four times of five; the gate is right nine times of ten."""
    home, rng = np.random.default_rng(7), np.random.default_rng(seed)
    weights = 1.2 * np.log(np.arange(1, EXPERTS + 1))
    names = rng.integers(0, 50, tokens)
    ids = np.empty((tokens, LAYERS, EACH), np.int32)
    for layer in range(LAYERS):
        own = np.argsort(weights - home.gumbel(size=(50, EXPERTS)), axis=1)[:, :EACH]
        other = np.argsort(weights - rng.gumbel(size=(tokens, EXPERTS)), axis=1)[:, :EACH]
        ids[:, layer] = np.where(rng.random((tokens, 1)) < 0.8, own[names], other)
    gate = np.where(rng.random(ids.shape) < 0.9, ids, rng.integers(0, EXPERTS, ids.shape)).astype(np.int32)
    gate[:, 0] = -1
    flags = np.zeros(tokens, bool)
    return routing_of(RoutingTrace(EXPERTS, ids, np.arange(tokens), names, flags, gate), "made")


LEARNT, PLAYED = routing(1), routing(2)


def played(cache: ExpertCache, batch: int, speeds: Speeds = SPEEDS) -> tuple[RoutingTrace, list[int], Steps]:
    trace = rebatched(by_sequence(PLAYED.trace), batch, 200, decodes=True)
    slots = [cache.slots(EXPERTS, EACH)] * LAYERS
    return trace, slots, offloaded_steps(trace, cache, slots, LEARNT.hints, speeds)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(ExpertPolicy),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.sampled_from([1, 3, 8]),
    st.booleans(),
)
def test_without_prefetch_a_step_is_its_compute_and_its_copies(
    policy: ExpertPolicy, fraction: float, batch: int, wide: bool
) -> None:
    cache = ExpertCache(fraction, policy, wide=wide)
    trace, slots, steps = played(cache, batch)
    replayed = replay(trace, slots, policy, LEARNT.hints, wide=wide)
    assert steps.copies.tolist() == replayed.misses.sum(axis=1).tolist()
    waited_s = replayed.misses.sum(axis=1) * 1.0 + replayed.here.sum(axis=1) * 0.125
    assert steps.stall_s == pytest.approx(waited_s)
    assert steps.step_s == pytest.approx(0.5 + LAYERS * 2.0 + waited_s)


@pytest.mark.parametrize("prefetch", [Prefetch.TOKEN, Prefetch.NEXT_GATE])
@pytest.mark.parametrize("batch", [1, 4])
def test_prefetch_copies_what_the_replay_says_and_hides_some_of_it(prefetch: Prefetch, batch: int) -> None:
    plain = ExpertCache(0.5, ExpertPolicy.LFU)
    ahead = replace(plain, prefetch=prefetch)
    trace, slots, steps = played(ahead, batch)
    replayed = replay(trace, slots, ahead.policy, LEARNT.hints, prefetch, wide=True)
    asked = replayed.misses.sum() + replayed.ahead.sum()
    assert asked - len(steps.copies) * 2 <= steps.copies.sum() <= asked  # the last may still be queued
    busy_s = replayed.misses.sum(axis=1) * 1.0 + replayed.here.sum(axis=1) * 0.125
    assert (steps.step_s >= 0.5 + LAYERS * 2.0 - 1e-9).all()
    assert steps.step_s.sum() >= busy_s.sum()
    assert steps.step_s.sum() < (0.5 + LAYERS * 2.0) * len(steps.step_s) + busy_s.sum() + replayed.ahead.sum()


@pytest.mark.parametrize("prefetch", list(Prefetch))
@pytest.mark.parametrize("fraction", [0.25, 0.5])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("layer_s", [1.0, 3.0, 9.0])
def test_predicted_steps_are_within_a_tenth_of_simulated_ones(
    prefetch: Prefetch, fraction: float, batch: int, layer_s: float
) -> None:
    cache = ExpertCache(fraction, ExpertPolicy.PINNED_LFU, prefetch)
    speeds = replace(SPEEDS, layer_s=layer_s)
    _, slots, steps = played(cache, batch, speeds)
    loads = step_loads(LEARNT, cache, slots, [batch], batch)
    exposed_s = loads.exposed.sum() * speeds.copy_s + loads.here.sum() * speeds.here_s
    ahead_s = tuple((count * LAYERS * speeds.copy_s,) for count in loads.ahead[0].tolist())
    copies = ExpertCopies((float(batch),), (exposed_s,), ahead_s)
    predicted_s = copies.step_s(float(batch), speeds.overhead_s + LAYERS * layer_s)
    assert predicted_s == pytest.approx(steps.after(32).step_s.mean(), rel=0.1)


def test_what_a_layer_waits_for_goes_before_what_is_copied_ahead() -> None:
    engine = CopyEngine(1.0)
    engine.guess(0.0, [(1, 1), (1, 2), (1, 3)])
    assert engine.demand(0.5, [(0, 9)], [(0, 9)], 0.0) == 2.0  # behind the one that has begun
    assert engine.demand(2.5, [], [(1, 3)], 0.0) == 4.0  # (1, 2) has begun, (1, 3) is drawn ahead
    assert engine.demand(5.0, [], [(1, 1), (1, 2)], 0.0) == 5.0 and not engine.ahead
    assert engine.demand(6.0, [], [], 0.25) == 6.25
    assert engine.copies == 4
