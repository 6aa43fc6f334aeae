"""How many replacements are launched, whatever happens to machines and whenever."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.deploy.ec2.budget import limited, spent
from hgpu.deploy.ec2.ladder import Patience, Seen, judged
from hgpu.deploy.ec2.notices import Notice
from hgpu.deploy.ec2.state import Cordon, Ec2State, MachineState, Rung, Step
from hgpu.deploy.ec2.world import Instance

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
OFFER = ("aws/g6.xlarge", "us-east-1")


def machine(number, step=Step.UP, **changes):
    fields = {
        "slot": f"l4-{number}",
        "pool": "l4",
        "offer": OFFER[0],
        "region": OFFER[1],
        "instance_type": "g6.xlarge",
        "market": "on_demand",
        "usd_per_hour": 0.8,
        "template": "chat-l4-0123456789",
        "generation": 1,
        "instance_id": None if step is Step.PLANNED else f"i-{number}",
        "step": step,
    }
    return MachineState(**{**fields, **changes})


def planned(one):
    return one.model_copy(update={"step": Step.PLANNED, "attempt": one.attempt + 1, "instance_id": None})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 90)), max_size=40), st.integers(0, 4))
def test_no_hour_has_more_launches_than_allowed(losses, an_hour):
    """Machines are lost again and again; the target always wants all of them back."""
    state, now, launches = Ec2State(name="chat", machines=[machine(n) for n in range(6)]), NOW, []
    for number, minutes in losses:
        now += timedelta(minutes=minutes)
        lost = state.machines[number].model_copy(update={"step": Step.LOST})
        state = state.with_machines([lost])
        target = state.with_machines(planned(m) for m in state.at(Step.LOST))
        state = limited(state, target, an_hour, {}, now)
        new = state.at(Step.PLANNED)
        launches += [now] * len(new)
        state = state.with_machines(m.model_copy(update={"step": Step.UP}) for m in new)
        assert len(state.machines) == 6
        assert sum(now - at < timedelta(hours=1) for at in launches) <= an_hour
        assert len(spent(state, now)) == sum(now - at < timedelta(hours=1) for at in launches)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 8))
def test_an_offer_never_has_more_machines_than_its_cap_lets_start(there, wanted, cap):
    old = [machine(n) for n in range(there)]
    new = [machine(there + n, Step.PLANNED, generation=2) for n in range(wanted)]
    state = Ec2State(name="chat", machines=old, generation=1)
    target = state.model_copy(update={"machines": [*old, *new], "generation": 2})
    after = limited(state, target, 99, {OFFER: cap}, NOW)
    started = len(after.machines) - there
    assert started == min(wanted, max(0, cap - there))
    assert after.generation == (2 if started else 1)


def test_what_a_deploy_had_planned_already_is_not_counted():
    state = Ec2State(name="chat", machines=[machine(0, Step.PLANNED)], generation=1)
    assert limited(state, state, 0, {}, NOW) == state


def test_a_launch_that_its_closed_offer_refused_is_given_back():
    state = Ec2State(name="chat", machines=[machine(0, Step.PLANNED)], replaced=[NOW.isoformat()])
    other = machine(1, Step.PLANNED, generation=2, offer="aws/g6e.xlarge")
    after = limited(state, state.model_copy(update={"machines": [other]}), 1, {}, NOW)
    assert after.machines == [other] and len(after.replaced) == 1


PATIENCE = Patience(starting_s=600, degraded_s=120)


def instance(state="running", reason=""):
    return Instance("i-0", OFFER[1], "g6.xlarge", state, {}, "10.0.0.1", reason)


def seen(passing=True, ill="", notice=None):
    return Seen(frozenset({"i-0"} if passing else ()), {"i-0": ill} if ill else {}, notice or {})


def climb(one, *looks):
    """The machine's record after looks, each some seconds after the one before."""
    now = NOW
    for seconds, found, what in looks:
        now += timedelta(seconds=seconds)
        one = judged(one, found, what, now, PATIENCE)
    return one


@pytest.mark.parametrize(("looks", "rung", "step"), [
    ([(0, instance("pending"), seen(False))], Rung.STARTING, Step.LAUNCHING),
    ([(0, instance("pending"), seen(False)), (599, instance(), seen(False))], Rung.STARTING, Step.LAUNCHING),
    ([(0, instance("pending"), seen(False)), (600, instance(), seen(False))], Rung.FAILED, Step.LEAVING),
    ([(0, instance(), seen(ill="x")), (600, instance(), seen())], Rung.READY, Step.UP),
    ([(0, instance(), seen(ill="x")), (600, instance(), seen(ill="x"))], Rung.FAILED, Step.LEAVING),
    ([(0, instance("shutting-down", "wrong GPUs"), seen(False))], Rung.FAILED, Step.LEAVING),
    ([(0, instance(), seen()), (9, instance(), seen(False))], Rung.DEGRADED, Step.UP),
    ([(0, instance(), seen()), (9, instance(), seen(ill="x")), (119, instance(), seen(ill="y"))],
     Rung.DEGRADED, Step.UP),
    ([(0, instance(), seen()), (9, instance(), seen(ill="x")), (120, instance(), seen(False))],
     Rung.FAILED, Step.LEAVING),
    ([(0, instance(), seen()), (9, instance("stopping"), seen(False))], Rung.FAILED, Step.LEAVING),
])  # fmt: skip
def test_the_ladder(looks, rung, step):
    after = climb(machine(0, Step.LAUNCHING), *looks)
    assert (after.watched.rung, after.step) == (rung, step)
    assert (after.cordon is not None) == (rung is Rung.FAILED)


def test_a_cordon_for_failing_is_lifted_and_one_for_a_notice_is_not():
    notice = {"i-0": Notice("marked-for-termination", NOW + timedelta(minutes=2))}
    failed = climb(machine(0), (0, instance("stopped"), seen(False)))
    assert failed.cordon == Cordon(why="it is stopped", at=NOW.isoformat()) and failed.step is Step.LEAVING
    back = climb(failed, (0, instance(), seen()))
    assert back.cordon is None and back.step is Step.UP
    noticed = climb(failed, (5, instance("stopped"), seen(False, notice=notice)))
    assert noticed.cordon.notice and noticed.cordon.at == NOW.isoformat()
    assert noticed.cordon.until == (NOW + timedelta(minutes=2)).isoformat()
    again = climb(noticed, (9, instance(), seen(notice=notice)), (9, instance(), seen()))
    assert again.cordon == noticed.cordon and again.step is Step.LEAVING


def test_what_is_not_there_or_not_asked_for_is_not_judged():
    for step in (Step.PLANNED, Step.LOST, Step.TERMINATING):
        assert climb(machine(0, step), (0, instance(), seen())) == machine(0, step)
    assert climb(machine(0), (0, None, seen())) == machine(0)
