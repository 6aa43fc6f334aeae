"""Machines come, stay, are replaced and go, on EC2 as moto plays it."""

import threading
from dataclasses import replace

import pytest
from ec2_cases import (
    WAITS,
    apply,
    driver,
    leftovers,
    living,
    no,
    options,
    plan_of,
    pool,
    slots,
    tagged,
    templates,
)
from ec2_faults import Faults

from hgpu.core.errors import EngineError, HgpuError, InputError, UnknownName
from hgpu.deploy.ec2.diff import Action
from hgpu.deploy.ec2.state import Step, read_state
from hgpu.deploy.lock import locked
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder


@pytest.fixture
def plan(tmp_path):
    return plan_of(tmp_path, pool("l4", 2), pool("a10g-spot", 1))


def recorded(root, name="chat"):
    return read_state(state_folder(root, name))


def end(client, machine):
    client.terminate_instances(InstanceIds=[machine.instance_id])


def test_a_plan_comes_up_stays_and_goes(aws, ec2, plan, tmp_path):
    diff = aws.diff(plan, tmp_path, options())
    assert [change.action for change in diff.changes] == [Action.LAUNCH] * 3
    assert diff.after_usd_per_hour == pytest.approx(sum(r.usd_per_hour for r in plan.payload.allocation))
    assert living(ec2) == [] and not (tmp_path / "state").exists()
    up = apply(aws, plan, tmp_path)
    assert up.changed and up.state.phase is Phase.READY
    assert slots(living(ec2)) == ["a10g-spot-0", "l4-0", "l4-1"] and len(templates(ec2)) == 2
    again = apply(aws, plan, tmp_path, approve=no)
    assert not again.changed and again.state == up.state
    (status,) = aws.status(tmp_path)
    assert status.phase is Phase.READY and status.drift == ()
    assert {slot.healthy for slot in status.slots} == {None}
    gone = aws.destroy(tmp_path, "chat")
    assert gone.killed == 3 and leftovers(ec2) == []
    assert recorded(tmp_path).phase is Phase.DESTROYED
    assert aws.status(tmp_path) == [] and aws.destroy(tmp_path, "chat").killed == 0
    assert aws.status(tmp_path, include_destroyed=True)[0].phase is Phase.DESTROYED


def test_without_a_go_ahead_nothing_is_called_that_changes_anything(moto, ec2, plan, tmp_path):
    client = moto.client()
    faults = Faults(client)
    with pytest.raises(EngineError, match="not approved"):
        apply(driver(moto, clients=lambda: lambda _: client), plan, tmp_path, approve=no)
    assert {name.startswith("Describe") for name in faults.names()} == {True}
    assert recorded(tmp_path) is None and leftovers(ec2) == []


def test_another_plan_makes_before_it_breaks(moto, ec2, plan, tmp_path):
    client = moto.client()
    aws = driver(moto, clients=lambda: lambda _: client)
    before = {m.slot: m.instance_id for m in apply(aws, plan, tmp_path).state.machines}
    new = plan_of(tmp_path, pool("l4", 1), pool("l40s", 1))
    diff = aws.diff(new, tmp_path, options())
    actions = {change.slot: change.action for change in diff.changes}
    assert sorted(actions.values()) == sorted(
        [Action.KEEP, Action.LAUNCH, Action.TERMINATE, Action.TERMINATE]
    )
    assert diff.peak_usd_per_hour > max(diff.before_usd_per_hour, diff.after_usd_per_hour)
    faults = Faults(client)
    after = apply(aws, new, tmp_path).state
    assert after.generation == 2 and slots(living(ec2)) == ["l4-0", "l40s-0"]
    assert after.machines[0].instance_id == before["l4-0"]
    names = faults.names()
    assert (
        names.index("TerminateInstances")
        > names.index("DescribeInstanceStatus")
        > names.index("RunInstances")
    )
    assert names.index("DeleteLaunchTemplate") > names.index("TerminateInstances")
    assert {m.template for m in after.machines} == {t.name for t in after.templates}
    assert sorted(t.name for t in after.templates) == templates(ec2)


def test_a_machine_ended_from_outside_is_drift_and_gets_another_attempt(moto, aws, ec2, plan, tmp_path):
    first = apply(aws, plan, tmp_path).state
    victim = first.machines[0]
    end(ec2, victim)
    (status,) = aws.status(tmp_path)
    assert status.phase is Phase.DEGRADED and victim.slot in status.drift[0]
    diff = aws.diff(plan, tmp_path, options())
    assert [c.slot for c in diff.changes if c.action is Action.REPLACE] == [victim.slot]
    client = moto.client()
    faults = Faults(client)
    second = apply(driver(moto, clients=lambda: lambda _: client), plan, tmp_path).state
    tokens = [asked["ClientToken"] for name, asked in faults.calls if name == "RunInstances"]
    machine = second.machines[0]
    assert (machine.slot, machine.generation, machine.attempt) == (victim.slot, victim.generation, 2)
    assert len(tokens) == 1 and machine.instance_id != victim.instance_id
    assert len(living(ec2)) == 3 and aws.status(tmp_path)[0].drift == ()


def test_a_machine_that_no_state_knows_is_told_and_taken_away(aws, ec2, plan, tmp_path):
    apply(aws, plan, tmp_path)
    tags = [{"Key": "hgpu:deployment", "Value": "chat"}, {"Key": "hgpu:slot", "Value": "l4-9"}]
    spec = [{"ResourceType": "instance", "Tags": tags}]
    row = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=spec)
    stray = row["Instances"][0]["InstanceId"]
    (status,) = aws.status(tmp_path)
    assert any(stray in line for line in status.drift)
    apply(aws, plan, tmp_path)
    assert stray not in {i["InstanceId"] for i in living(ec2)} and len(living(ec2)) == 3


def test_what_another_results_folder_deployed_is_refused_and_destroyed_only_by_region(
    moto, aws, ec2, plan, tmp_path
):
    apply(aws, plan, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(InputError, match="knows nothing of"):
        apply(aws, plan, elsewhere)
    assert len(living(ec2)) == 3
    with pytest.raises(UnknownName):
        aws.destroy(elsewhere, "chat")
    with pytest.raises(UnknownName):
        driver(moto, "us-east-1").destroy(elsewhere, "other")
    assert driver(moto, "us-east-1").destroy(elsewhere, "chat").killed == 3
    assert leftovers(ec2) == []


def test_an_unreadable_state_needs_a_region_to_destroy(moto, aws, ec2, plan, tmp_path):
    apply(aws, plan, tmp_path)
    (state_folder(tmp_path, "chat") / "state.json").write_text("{")
    assert aws.status(tmp_path)[0].phase is Phase.DEGRADED
    with pytest.raises(InputError, match="--region"):
        aws.destroy(tmp_path, "chat")
    assert driver(moto, "us-east-1").destroy(tmp_path, "chat").killed == 3
    assert leftovers(ec2) == []


def test_after_a_destroy_tokens_are_new_ones_even_where_the_state_is_lost(moto, ec2, plan, tmp_path):
    client = moto.client()
    aws, faults = driver(moto, clients=lambda: lambda _: client), Faults(client)
    for lost in (False, True, False):
        apply(aws, plan, tmp_path)
        aws.destroy(tmp_path, "chat")
        if lost:
            (state_folder(tmp_path, "chat") / "state.json").unlink()
    tokens = [asked["ClientToken"] for name, asked in faults.calls if name == "RunInstances"]
    assert len(tokens) == len(set(tokens)) == 9


def test_a_disk_that_was_left_behind_is_deleted(aws, ec2, plan, tmp_path):
    apply(aws, plan, tmp_path)
    tags = [{"Key": "hgpu:deployment", "Value": "chat"}]
    spec = [{"ResourceType": "volume", "Tags": tags}]
    ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, TagSpecifications=spec)
    aws.destroy(tmp_path, "chat")
    assert leftovers(ec2) == []


def test_machines_of_two_regions_come_and_go_together(moto, aws, ec2, tmp_path):
    west = moto.client("us-west-2")
    plan = plan_of(tmp_path, pool("l4", 1), pool("l40s", 1, region="us-west-2"))
    apply(aws, plan, tmp_path)
    assert slots(living(ec2)) == ["l4-0"] and slots(living(west)) == ["l40s-0"]
    apply(aws, plan_of(tmp_path, pool("l4", 1)), tmp_path)
    assert leftovers(west) == [] and recorded(tmp_path).regions == ["us-east-1"]
    aws.destroy(tmp_path, "chat")
    assert leftovers(ec2) == []


@pytest.mark.parametrize("keep", [False, True])
def test_where_a_machine_does_not_come_up_what_was_launched_goes_unless_kept(moto, ec2, plan, tmp_path, keep):
    client = moto.client()
    aws, faults = driver(moto, clients=lambda: lambda _: client), Faults(client)
    faults.add("DescribeInstanceStatus", "InternalError")
    with pytest.raises(HgpuError, match="InternalError"):
        apply(aws, plan, tmp_path, keep_on_failure=keep)
    assert len(living(ec2)) == (3 if keep else 0)
    assert recorded(tmp_path).phase is Phase.DEGRADED
    faults.rules.clear()
    up = apply(aws, plan, tmp_path)
    assert up.state.phase is Phase.READY and len(living(ec2)) == 3


def test_a_machine_that_ends_while_it_starts_is_named(moto, ec2, plan, tmp_path):
    client = moto.client()

    def ends(model, **_):
        for machine in living(ec2)[:1] if model.name == "DescribeInstanceStatus" else ():
            ec2.terminate_instances(InstanceIds=[machine["InstanceId"]])

    client.meta.events.register("before-call.ec2", ends)
    with pytest.raises(EngineError, match="not up") as failed:
        apply(driver(moto, clients=lambda: lambda _: client), plan, tmp_path)
    assert "terminated" in failed.value.why


def test_of_two_deploys_at_once_one_is_refused(aws, ec2, plan, tmp_path):
    held, done = threading.Event(), threading.Event()

    def waits(_diff):
        held.set()
        assert done.wait(30)

    first = threading.Thread(target=apply, args=(aws, plan, tmp_path), kwargs={"approve": waits})
    first.start()
    try:
        assert held.wait(30)
        with pytest.raises(HgpuError, match="another hgpu is working on it"):
            apply(aws, plan, tmp_path)
        with pytest.raises(HgpuError, match="another hgpu is working on it"):
            aws_with_state(aws, tmp_path)
    finally:
        done.set()
        first.join()
    assert len(living(ec2)) == 3


def aws_with_state(aws, root):
    with locked(state_folder(root, "chat")):
        aws.destroy(root, "chat")


def test_a_destroy_that_was_interrupted_is_followed_by_a_deploy_of_new_machines(aws, ec2, plan, tmp_path):
    old = apply(aws, plan, tmp_path).state
    folder = state_folder(tmp_path, "chat")
    going = [m.model_copy(update={"step": Step.TERMINATING}) for m in old.machines]
    from hgpu.deploy.ec2.state import write_state

    write_state(folder, old.model_copy(update={"phase": Phase.DESTROYING, "machines": going}))
    new = apply(aws, plan, tmp_path).state
    assert not {m.instance_id for m in new.machines} & {m.instance_id for m in old.machines}
    assert len(living(ec2)) == 3


def test_a_launch_template_of_somebody_else_is_not_touched(aws, ec2, plan, tmp_path):
    name = next(c for c in apply(aws, plan, tmp_path).state.templates).name
    aws.destroy(tmp_path, "chat")
    ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={"InstanceType": "t3.nano"})
    with pytest.raises(InputError, match="isn't hgpu's"):
        apply(aws, plan, tmp_path)
    assert living(ec2) == []
    assert ec2.describe_launch_templates(LaunchTemplateNames=[name])["LaunchTemplates"]


def test_machines_are_closed_tagged_and_ask_for_tokens_of_their_metadata(moto, aws, ec2, plan, tmp_path):
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    apply(aws, plan, tmp_path, security_groups=(group,), subnet=subnet)
    assert {machine["SubnetId"] for machine in living(ec2)} == {subnet}
    for name in templates(ec2):
        (version,) = ec2.describe_launch_template_versions(LaunchTemplateName=name)["LaunchTemplateVersions"]
        data = version["LaunchTemplateData"]
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["SecurityGroupIds"] == [group]
        assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
        market = data.get("InstanceMarketOptions", {}).get("MarketType")
        assert market == ("spot" if "g5-xlarge" in name else None)
    for machine in living(ec2):
        tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
        assert {"hgpu:deployment", "hgpu:pool", "hgpu:slot", "hgpu:generation", "hgpu:attempt"} <= set(tags)
    volumes = ec2.describe_volumes(Filters=tagged("chat"))["Volumes"]
    assert len(volumes) == 3


def test_waits_that_end_too_soon_say_how_long_they_were():
    assert replace(WAITS, health_s=60, poll_s=15).healthy == {"Delay": 15, "MaxAttempts": 4}
    assert replace(WAITS, health_s=1, poll_s=15).healthy["MaxAttempts"] == 1


def test_a_launch_that_is_refused_outright_is_not_waited_for(moto, ec2, plan, tmp_path):
    patient = driver(moto, waits=replace(WAITS, visible_s=3600, poll_s=3600))
    with pytest.raises(HgpuError, match="InvalidGroup"):
        apply(patient, plan, tmp_path, security_groups=("sg-0123456789abcdef0",))
    assert living(ec2) == []


def test_machines_of_another_state_are_never_taken_for_strays(moto, aws, ec2, plan, tmp_path):
    apply(aws, plan, tmp_path)
    path = state_folder(tmp_path / "elsewhere", "chat") / "state.json"
    path.parent.mkdir(parents=True)
    mine = recorded(tmp_path)
    path.write_text(mine.model_copy(update={"lineage": "bb", "machines": []}).model_dump_json())
    with pytest.raises(InputError, match="knows nothing of"):
        apply(aws, plan, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="not all of 'chat'"):
        aws.destroy(tmp_path / "elsewhere", "chat")
    assert len(living(ec2)) == 3
    assert driver(moto, "us-east-1").destroy(tmp_path / "elsewhere", "chat").killed == 3
    assert leftovers(ec2) == []
