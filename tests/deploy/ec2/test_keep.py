"""The supervisor of a deployment on EC2: machines that fail or are taken away get replacements."""

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from deploy.ec2.test_capacity import SPEC, of_pool, replan, solve
from ec2_cases import (
    apply,
    driver,
    launched_twice,
    leftovers,
    living,
    options,
    plan_of,
    pool,
    slots,
    templates,
)
from ec2_faults import Faults

from hgpu.artifacts.resolve import resolve
from hgpu.core.errors import HgpuError, InputError, UnknownName
from hgpu.deploy.ec2.diff import Action
from hgpu.deploy.ec2.ladder import Patience
from hgpu.deploy.ec2.state import Rung, Step, read_state, write_state
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder

NAME = "chat"


class Engines:
    """Engines of machines: each has an address of 127.0.0.0/8, and is healthy unless it is in `ill`."""

    def __init__(self):
        self.ill, self.all_ill, self.numbers = set(), False, {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                host = self.headers["host"].partition(":")[0]
                ok = not (outer.all_ill or host in outer.ill)
                self.send_response(200 if ok else 503)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("", 0), Handler)
        threading.Thread(target=self.server.serve_forever).start()

    def host(self, private_ip):
        return f"127.0.1.{self.numbers.setdefault(private_ip, len(self.numbers) + 1)}"

    def addresses(self, private_ip, engines):
        return [f"http://{self.host(private_ip)}:{self.server.server_port}"] * engines


class Fleet:
    """A deployment of a plan with a supervisor, at a time that the test moves."""

    def __init__(self, moto, root, plan, engines=None):
        self.root, self.now, self.steps = root, datetime(2026, 11, 25, 12, 0, tzinfo=UTC), []
        self.client, self.ec2, self.engines = moto.client(), moto.client(), engines
        changes = {"addresses": engines.addresses} if engines else {}
        self.aws = driver(moto, clients=lambda: lambda _: self.client, now=lambda: self.now, **changes)
        apply(self.aws, plan, root)
        if engines:  # the stand-ins serve no model, which is what a deploy looks for
            self.write(private_addresses=True)
        self.faults, self.caps, self.keeper = Faults(self.client), {}, self.new_keeper()

    def new_keeper(self, **changes):
        made = self.aws.keeper(
            self.root, NAME, lambda digest: resolve(self.root, digest, "plan"), lambda _: self.caps, None,
            self.steps.append,
        )  # fmt: skip
        for key, value in {"patience": Patience(600, 120, 60), **changes}.items():
            setattr(made, key, value)
        return made

    @property
    def folder(self):
        return state_folder(self.root, NAME)

    @property
    def state(self):
        return read_state(self.folder)

    def write(self, **fields):
        write_state(self.folder, self.state.model_copy(update=fields))

    def look(self, seconds=0):
        self.now += timedelta(seconds=seconds)
        return self.keeper.look()

    def machine(self, slot):
        (found,) = [m for m in self.state.machines if m.slot == slot]
        return found

    def end(self, slot):
        self.ec2.terminate_instances(InstanceIds=[self.machine(slot).instance_id])

    def called(self, name):
        return self.faults.names().count(name)

    def host(self, slot):
        (found,) = [i for i in living(self.ec2) if i["InstanceId"] == self.machine(slot).instance_id]
        return self.engines.host(found["PrivateIpAddress"])

    def endpoints(self):
        return json.loads((self.folder / "endpoints.json").read_text())["pools"]

    def said(self, *words):
        return any(all(word in step for word in words) for step in self.steps)


@pytest.fixture
def engines():
    made = Engines()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def fleet(moto, tmp_path):
    return Fleet(moto, tmp_path, plan_of(tmp_path, pool("l4", 2), pool("a10g-spot", 1)))


@pytest.fixture
def asked(moto, tmp_path, engines):
    """A fleet whose engines are asked for their health."""
    return Fleet(moto, tmp_path, plan_of(tmp_path, pool("l4", 2)), engines)


def test_what_is_well_stays_and_nothing_is_called_that_changes_anything(fleet):
    before = {m.slot: m.instance_id for m in fleet.state.machines}
    first = fleet.look()
    assert {m.watched.rung for m in first.machines} == {Rung.READY} and first.phase is Phase.READY
    again = fleet.look(60)
    assert again == first == fleet.state  # nothing was written
    assert {m.slot: m.instance_id for m in again.machines} == before
    assert all(name.startswith("Describe") for name in fleet.faults.names())
    assert {pool: len(urls) for pool, urls in fleet.endpoints().items()} == {"l4": 2, "a10g-spot": 1}


def test_a_machine_that_is_gone_gets_another_attempt(fleet):
    victim = fleet.machine("l4-1")
    fleet.end("l4-1")
    launching = fleet.look()
    assert launching.phase is Phase.STARTING and len(living(fleet.ec2)) == 3
    assert fleet.said("l4-1", "is gone")
    assert len(fleet.endpoints()["l4"]) == 1  # not ready yet
    ready = fleet.look(10)
    machine = fleet.machine("l4-1")
    assert ready.phase is Phase.READY and (machine.attempt, machine.step) == (2, Step.UP)
    assert machine.instance_id != victim.instance_id and machine.watched.rung is Rung.READY
    assert fleet.called("RunInstances") == 1 and fleet.called("TerminateInstances") == 0
    assert len(fleet.endpoints()["l4"]) == 2 and len(ready.replaced) == 1
    assert fleet.aws.status(fleet.root)[0].drift == ()


def test_a_spot_notice_starts_a_replacement_first_and_the_old_one_goes_when_that_is_ready(fleet):
    victim = fleet.machine("a10g-spot-0")
    fleet.look()
    fleet.faults.notice(victim.instance_id, fleet.now)
    fleet.look(5)
    assert slots(living(fleet.ec2)) == ["a10g-spot-0", "a10g-spot-1", "l4-0", "l4-1"]
    old = fleet.machine("a10g-spot-0")
    assert old.step is Step.LEAVING and "marked-for-termination" in old.cordon.why
    assert fleet.endpoints()["a10g-spot"] == []
    (status,) = fleet.aws.status(fleet.root)
    assert status.phase is Phase.DEGRADED and any("is cordoned: EC2" in line for line in status.drift)
    fleet.look(10)  # the replacement is ready; what the old one is at isn't done
    assert len(living(fleet.ec2)) == 4 and len(fleet.endpoints()["a10g-spot"]) == 1
    assert fleet.machine("a10g-spot-1").step is Step.UP
    fleet.look(60)
    assert slots(living(fleet.ec2)) == ["a10g-spot-1", "l4-0", "l4-1"]
    done = fleet.look(10)
    assert done.phase is Phase.READY and len(done.machines) == 3
    names = fleet.faults.names()
    assert names.index("RunInstances") < names.index("TerminateInstances")


def test_a_cordoned_machine_gets_no_requests_even_where_its_replacement_is_refused(fleet):
    fleet.look()
    fleet.faults.notice(fleet.machine("a10g-spot-0").instance_id, fleet.now)
    fleet.faults.add("RunInstances", "UnauthorizedOperation")
    with pytest.raises(HgpuError, match="UnauthorizedOperation"):
        fleet.look(5)
    assert fleet.endpoints()["a10g-spot"] == []


def test_at_the_end_of_its_notice_a_machine_goes_whatever_its_replacement_is_at(fleet, monkeypatch):
    victim = fleet.machine("a10g-spot-0")
    fleet.faults.notice(victim.instance_id, fleet.now, "marked-for-stop")
    monkeypatch.setattr("hgpu.deploy.ec2.observe.passing", lambda _, ids: set(ids) & {victim.instance_id})
    fleet.look(1)
    fleet.look(110)
    assert victim.instance_id in {i["InstanceId"] for i in living(fleet.ec2)}
    fleet.look(9)
    assert victim.instance_id not in {i["InstanceId"] for i in living(fleet.ec2)}


@pytest.mark.parametrize("code", ["fulfilled", "request-canceled-and-instance-running"])
def test_other_words_about_spot_machines_are_no_notice(fleet, code):
    fleet.faults.notice(fleet.machine("a10g-spot-0").instance_id, fleet.now, code)
    assert fleet.look().phase is Phase.READY and fleet.machine("a10g-spot-0").cordon is None


def test_only_spot_machines_are_asked_about(moto, tmp_path):
    fleet = Fleet(moto, tmp_path, plan_of(tmp_path, pool("l4", 1)))
    fleet.look()
    assert fleet.called("DescribeSpotInstanceRequests") == 0


def test_an_engine_climbs_down_the_ladder_and_is_replaced_when_it_is_failed(asked, engines):
    asked.look()
    engines.ill.add(asked.host("l4-0"))
    asked.look(10)
    machine = asked.machine("l4-0")
    assert machine.watched.rung is Rung.DEGRADED and "engine-0 isn't healthy" in machine.watched.why
    assert machine.step is Step.UP and len(asked.endpoints()["l4"]) == 1
    asked.look(119)
    assert asked.called("RunInstances") == 0
    asked.look(1)
    assert asked.machine("l4-0").watched.rung is Rung.FAILED and asked.machine("l4-0").step is Step.LEAVING
    assert len(living(asked.ec2)) == 3 and asked.called("TerminateInstances") == 0
    asked.look(10)  # its replacement is ready: there is nothing to drain in a failed one
    assert slots(living(asked.ec2)) == ["l4-1", "l4-2"]
    assert asked.look(10).phase is Phase.READY


def test_an_engine_that_is_well_again_in_time_costs_nothing(asked, engines):
    asked.look()
    for _ in range(3):
        engines.ill.add(asked.host("l4-0"))
        asked.look(10)
        asked.look(100)
        engines.ill.clear()
        asked.look(10)
        assert asked.machine("l4-0").watched.rung is Rung.READY
    assert asked.called("RunInstances") == 0


def test_where_all_engines_are_out_of_reach_none_is_terminated_and_they_are_taken_back(asked, engines):
    """It may be this side's network: what serves must not go before another one is seen to serve."""
    asked.look()
    before = {m.instance_id for m in asked.state.machines}
    engines.all_ill = True
    for seconds in (10, 120, 300):
        asked.look(seconds)
    assert {i["InstanceId"] for i in living(asked.ec2)} > before
    engines.all_ill = False
    asked.look(10)
    asked.look(10)
    asked.look(10)
    assert {m.instance_id for m in asked.state.machines} == before and asked.state.phase is Phase.READY
    assert {i["InstanceId"] for i in living(asked.ec2)} == before
    assert asked.said("is well again, and taken back")


def test_an_image_that_never_gets_healthy_costs_so_many_launches_an_hour_and_no_more(asked, engines):
    """Three hours of a broken image: each machine that never was ready ends before the next one starts."""
    asked.keeper.an_hour = 2
    asked.look()
    engines.all_ill = True
    served = {m.instance_id for m in asked.state.machines}
    launches = []
    for _ in range(3 * 30):
        before = asked.called("RunInstances")
        asked.look(120)
        launches += [asked.now] * (asked.called("RunInstances") - before)
        assert len(living(asked.ec2)) <= 4
    assert len(launches) == 6  # two an hour
    for first, third in zip(launches, launches[2:], strict=False):
        assert third - first >= timedelta(hours=1)
    assert served <= {i["InstanceId"] for i in living(asked.ec2)}
    assert asked.said("replacements are held back: 2 of 2 an hour")


def test_no_replacement_is_launched_where_none_is_allowed(fleet):
    fleet.keeper.an_hour = 0
    fleet.end("l4-0")
    assert fleet.look().phase is Phase.STARTING and fleet.called("RunInstances") == 0
    generation = fleet.state.generation
    fleet.look(10)
    assert fleet.state.generation == generation and fleet.machine("l4-0").step is Step.LOST
    assert sum("held back" in step for step in fleet.steps) == 1
    fleet.keeper.an_hour = 1
    fleet.look(10)
    assert fleet.look(10).phase is Phase.READY


def test_where_the_offer_has_a_cap_a_failed_machine_goes_first_and_a_noticed_one_at_its_end(asked, engines):
    asked.caps = {("aws/g6.xlarge", "us-east-1"): 2}
    asked.look()
    engines.ill.add(asked.host("l4-0"))
    asked.look(10)
    asked.look(120)  # failed, and gone
    assert slots(living(asked.ec2)) == ["l4-1"] and asked.called("RunInstances") == 0
    asked.look(10)
    assert len(living(asked.ec2)) == 2
    assert asked.look(10).phase is Phase.READY


def test_a_noticed_machine_of_a_capped_offer_serves_until_its_end(fleet):
    fleet.caps = {("aws/g5.xlarge:spot", "us-east-1"): 1}
    fleet.faults.notice(fleet.machine("a10g-spot-0").instance_id, fleet.now)
    fleet.look(5)
    fleet.look(100)
    assert slots(living(fleet.ec2)) == ["a10g-spot-0", "l4-0", "l4-1"]
    fleet.look(20)
    assert slots(living(fleet.ec2)) == ["l4-0", "l4-1"]
    fleet.look(5)
    assert fleet.look(5).phase is Phase.READY and len(living(fleet.ec2)) == 3


def test_a_closed_offer_is_waited_for_where_nothing_plans_around_it(fleet):
    fleet.end("a10g-spot-0")
    fleet.faults.add("RunInstances", "InsufficientInstanceCapacity", message="none left")
    fleet.look()
    assert fleet.said("can't be had", "none left") and len(fleet.state.closed) == 1
    fleet.look(60)
    assert fleet.called("RunInstances") == 1
    fleet.faults.rules.clear()
    fleet.look(30 * 60)
    assert fleet.look(10).phase is Phase.READY and fleet.called("RunInstances") == 2
    assert fleet.state.closed == [] and len(fleet.state.replaced) == 1


def test_a_closed_offer_is_planned_around_as_deploy_does(moto, tmp_path):
    plan = solve(tmp_path, SPEC.replace("[L4, L40S, A10G]", "[L4, A10G]"))
    first = max(plan.payload.allocation, key=lambda row: row.count)
    fleet = Fleet(moto, tmp_path, plan)
    fleet.keeper.replan, fleet.keeper.an_hour = replan(tmp_path), 50
    victim = next(m for m in fleet.state.machines if m.offer == first.offer)
    fleet.end(victim.slot)
    fleet.faults.add("RunInstances", "InsufficientInstanceCapacity", **of_pool(first))
    state = fleet.look()
    assert state.plan_digest != plan.digest and state.closed[0].offer == first.offer
    around = resolve(tmp_path, state.plan_digest, "plan")
    assert around.manifest.options["at_most"] == {f"{first.offer}@{first.region}": first.count - 1}
    for _ in range(3):
        state = fleet.look(10)
    assert state.phase is Phase.READY
    wanted = sum(row.count for row in around.payload.allocation)
    assert len(living(fleet.ec2)) == len(state.machines) == wanted
    assert len(state.replaced) == fleet.called("RunInstances") - 1  # the one that was refused


def test_where_no_plan_is_found_it_is_told_once_and_not_solved_again_each_pass(fleet):
    solved = []

    def none(plan, closed):
        solved.append(closed)
        return replan(fleet.root)(plan, closed)

    fleet.keeper.replan = none
    fleet.end("a10g-spot-0")
    fleet.faults.add("RunInstances", "SpotMaxPriceTooLow")
    for _ in range(3):
        fleet.look(10)
    assert len(solved) == 1 and fleet.said("can't be solved again", "waiting until")
    assert slots(living(fleet.ec2)) == ["l4-0", "l4-1"]


def test_strays_go_and_templates_that_are_needed_stay(fleet):
    tags = [{"Key": "hgpu:deployment", "Value": NAME}, {"Key": "hgpu:slot", "Value": "l4-9"}]
    spec = [{"ResourceType": "instance", "Tags": tags}]
    fleet.ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=spec)
    fleet.look()
    assert slots(living(fleet.ec2)) == ["a10g-spot-0", "l4-0", "l4-1"] and len(templates(fleet.ec2)) == 2


def test_a_stopped_machine_has_failed_at_once(fleet):
    fleet.look()
    fleet.ec2.stop_instances(InstanceIds=[fleet.machine("l4-0").instance_id])
    fleet.look(10)
    assert fleet.machine("l4-0").watched.rung is Rung.FAILED
    fleet.look(10)
    assert fleet.look(10).phase is Phase.READY and slots(living(fleet.ec2)) == ["a10g-spot-0", "l4-1", "l4-2"]


def test_a_deploy_replaces_what_is_cordoned_too(fleet):
    fleet.keeper.an_hour = 0
    fleet.faults.notice(fleet.machine("a10g-spot-0").instance_id, fleet.now)
    fleet.look(5)
    plan = resolve(fleet.root, fleet.state.plan_digest, "plan")
    (going,) = [
        c for c in fleet.aws.diff(plan, fleet.root, options()).changes if c.action is Action.TERMINATE
    ]
    assert going.slot == "a10g-spot-0" and going.why.startswith("it is cordoned: EC2 takes it away")
    after = apply(fleet.aws, plan, fleet.root).state
    assert sorted(m.slot for m in after.machines) == ["a10g-spot-1", "l4-0", "l4-1"]
    assert after.phase is Phase.READY and len(living(fleet.ec2)) == 3


def test_what_cannot_be_kept_is_refused(fleet, monkeypatch):
    fleet.write(phase=Phase.DEGRADED)
    fleet.end("l4-0")
    with pytest.raises(HgpuError, match="last deploy of 'chat' failed"):
        fleet.look()
    fleet.write(phase=Phase.READY, lineage="another")
    with pytest.raises(InputError, match="knows nothing of"):
        fleet.look()
    fleet.write(chosen=None)
    with pytest.raises(InputError, match="isn't known"):
        fleet.look()
    assert fleet.called("RunInstances") == 0
    with pytest.raises(UnknownName):
        fleet.aws.keeper(fleet.root, "other", None, None, None, print)


def test_a_supervisor_rolls_nothing_out_by_itself(fleet, monkeypatch):
    monkeypatch.setattr("hgpu.deploy.render.aws.DISK_GIB", 101)
    fleet.end("l4-0")
    with pytest.raises(InputError, match="would launch other machines of a10g-spot, l4"):
        fleet.look()
    assert fleet.called("RunInstances") == 0


def test_it_goes_on_after_a_refusal_and_ends_with_the_deployment(fleet):
    fleet.faults.add("DescribeInstances", "RequestLimitExceeded")
    waits = []

    def wait():
        waits.append(len(fleet.steps))
        if len(waits) == 2:
            fleet.faults.rules.clear()
            fleet.end("l4-0")
        if len(waits) == 5:
            assert fleet.state.phase is Phase.READY
            fleet.aws.destroy(fleet.root, NAME)

    fleet.keeper.run(wait)
    assert len(waits) == 5 and leftovers(fleet.ec2) == []
    assert sum("RequestLimitExceeded" in step for step in fleet.steps) == 1
    assert launched_twice(fleet.ec2) == []


@contextmanager
def dying(monkeypatch, at):
    """Passes die right after the state was written the n-th time."""
    import hgpu.deploy.ec2.rollout as rollout

    real, left = rollout.write_state, [at]

    def write(folder, state):
        written = real(folder, state)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return written

    with monkeypatch.context() as patch:
        patch.setattr(rollout, "write_state", write)
        yield


def test_a_replacement_is_counted_before_it_is_launched(fleet, monkeypatch):
    fleet.keeper.an_hour = 1
    fleet.end("l4-0")
    with dying(monkeypatch, 1), pytest.raises(KeyboardInterrupt):
        fleet.look()
    assert len(fleet.state.replaced) == 1 and fleet.called("RunInstances") == 0
    fleet.keeper = fleet.new_keeper(an_hour=1)
    fleet.look()
    assert fleet.look(10).phase is Phase.READY and fleet.called("RunInstances") == 1
