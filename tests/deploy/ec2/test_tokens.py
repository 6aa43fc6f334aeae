"""What moto lacks, by botocore's stubs: idempotent launches, and machines that EC2 doesn't list yet."""

from datetime import UTC, datetime

import boto3
import pytest
from botocore.stub import Stubber
from ec2_cases import WAITS

from hgpu.core.errors import HgpuError
from hgpu.deploy.ec2.clients import told
from hgpu.deploy.ec2.intent import refreshed
from hgpu.deploy.ec2.launch import launched
from hgpu.deploy.ec2.sight import hidden, sighted, wait_for
from hgpu.deploy.ec2.state import Ec2State, MachineState, Step, client_token
from hgpu.deploy.ec2.tags import machine_tags
from hgpu.deploy.ec2.world import World

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ID = "i-0123456789abcdef0"
CHAT = Ec2State(name="chat", lineage="aa")


def machine(**changes):
    fields = {
        "slot": "l4-0",
        "pool": "l4",
        "offer": "aws/g6.xlarge",
        "region": "us-east-1",
        "instance_type": "g6.xlarge",
        "market": "on_demand",
        "usd_per_hour": 0.8,
        "template": "chat-l4-0123456789",
        "generation": 1,
    }
    return MachineState(**{**fields, **changes})


def described(ident, state, one=None):
    tags = machine_tags(CHAT, one) if one else []
    return {"InstanceId": ident, "InstanceType": "g6.xlarge", "State": {"Name": state}, "Tags": tags}


def listed(*rows):
    return {"Reservations": [{"Instances": list(rows)}] if rows else []}


@pytest.fixture
def client():
    return boto3.client(
        "ec2", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
    )


@pytest.fixture
def stub(client):
    with Stubber(client) as made:
        yield made
        made.assert_no_pending_responses()


def asked(one):
    tags = machine_tags(CHAT, one)
    return {
        "LaunchTemplate": {"LaunchTemplateName": one.template, "Version": "1"},
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": client_token(CHAT, one),
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }


def launch(one, client, kept):
    return launched(one, CHAT, None, client, kept.append, NOW)


def test_a_token_tells_deployment_slot_generation_and_attempt_and_nothing_else():
    one = machine()
    others = [machine(slot="l4-1"), machine(generation=2), machine(attempt=2)]
    tokens = {client_token(CHAT, one), client_token(Ec2State(name="other", lineage="aa"), one)} | {
        client_token(CHAT, other) for other in others
    }
    tokens.add(client_token(Ec2State(name="chat", lineage="bb"), one))
    assert len(tokens) == 6 and all(len(token) <= 64 for token in tokens)
    same = machine(pool="x", template="y", instance_id=ID, step=Step.UP, usd_per_hour=1)
    assert client_token(CHAT, one) == client_token(CHAT, same)


def test_a_repeated_call_has_the_same_token_and_gets_the_machine_of_the_first(client, stub):
    one = machine(step=Step.LAUNCHING)
    for _ in range(2):  # the first answer was lost with the process: the second call replays it
        stub.add_response("run_instances", {"Instances": [described(ID, "pending", one)]}, asked(one))
    kept = []
    first, second = launch(one, client, kept), launch(one, client, kept)
    assert first == second and first.instance_id == ID and first.attempt == 1
    assert [row.instance_id for row in kept] == [None, ID, None, ID]


def test_a_token_of_a_machine_that_is_gone_is_spent(client, stub):
    one, two = machine(), machine(attempt=2)
    stub.add_response("run_instances", {"Instances": [described(ID, "terminated", one)]}, asked(one))
    stub.add_response("run_instances", {"Instances": [described("i-1", "pending", two)]}, asked(two))
    kept = []
    assert launch(one, client, kept).instance_id == "i-1"
    assert [(row.attempt, row.instance_id) for row in kept] == [(1, None), (2, None), (2, "i-1")]


def test_a_token_that_was_used_with_other_parameters_is_spent_and_this_has_an_end(client, stub):
    for attempt in (1, 2, 3):
        stub.add_client_error(
            "run_instances",
            "IdempotentParameterMismatch",
            http_status_code=400,
            expected_params=asked(machine(attempt=attempt)),
        )
    with pytest.raises(HgpuError, match="can't be launched"):
        launch(machine(), client, [])


def test_after_no_answer_the_launch_stays_open_and_after_a_no_it_is_not(client, stub):
    for status, step in ((500, Step.LAUNCHING), (400, Step.PLANNED)):
        stub.add_client_error("run_instances", "Whatever", http_status_code=status)
        kept = []
        with pytest.raises(HgpuError, match="Whatever"):
            launch(machine(), client, kept)
        assert kept[-1].step is step


def test_a_machine_that_is_not_listed_yet_is_waited_for_and_not_taken_for_lost(client, stub):
    one = machine(step=Step.UP, instance_id=ID)
    state = Ec2State(name="chat", machines=[one])
    by_id = {"Filters": [{"Name": "instance-id", "Values": [ID]}]}
    stub.add_response("describe_instances", listed(), by_id)
    for _ in range(2):
        stub.add_response("describe_instances", listed(described(ID, "pending", one)), by_id)
    empty = World((), ())
    unseen = hidden(state, empty, lambda _: client, WAITS)
    assert unseen == {ID} and refreshed(state, empty, unseen) == state
    assert refreshed(state, empty).machines[0].step is Step.LOST


def test_a_launch_without_an_answer_is_looked_for_until_its_machine_would_show(client, stub):
    one = machine(step=Step.TERMINATING)
    for rows in ((), (), (described(ID, "pending", one),), (described(ID, "pending", one),)):
        stub.add_response("describe_instances", listed(*rows))
    found = sighted(one, "chat", lambda _: client, WAITS)
    assert found is not None and found.id == ID
    for _ in range(5):
        stub.add_response("describe_instances", listed())
    assert sighted(one, "chat", lambda _: client, WAITS) is None


def test_waits_for_health_go_on_while_ids_are_unknown_and_end_where_ec2_refuses(client, stub):
    stub.add_client_error("describe_instances", "InvalidInstanceID.NotFound", http_status_code=400)
    stub.add_response("describe_instances", listed(described(ID, "running")))
    assert wait_for(client, "instance_running", [ID], WAITS.healthy)
    stub.add_client_error("describe_instances", "UnauthorizedOperation", http_status_code=403)
    with pytest.raises(HgpuError, match="UnauthorizedOperation") as refused:
        wait_for(client, "instance_running", [ID], WAITS.healthy)
    assert "docs/iam/deploy-aws.json" in refused.value.fix


def test_an_adopted_machine_is_of_this_attempt_and_lives():
    one = machine(step=Step.LAUNCHING)
    tags = {tag["Key"]: tag["Value"] for tag in machine_tags(CHAT, one)}
    older = {tag["Key"]: tag["Value"] for tag in machine_tags(CHAT, machine(attempt=2))}
    from hgpu.deploy.ec2.world import Instance

    def world(*rows):
        made = (Instance(i, "us-east-1", "g6.xlarge", state, t, "", "") for i, state, t in rows)
        return World(tuple(made), ())

    def after(*rows):
        return refreshed(Ec2State(name="chat", machines=[one]), world(*rows)).machines[0]

    assert after(("i-1", "terminated", tags), ("i-2", "pending", tags)).instance_id == "i-2"
    assert after(("i-1", "pending", older)).instance_id is None
    assert after(("i-1", "terminated", tags)).step is Step.LOST


def test_no_credentials_and_no_route_are_errors_for_the_user(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    session = boto3.Session()
    lost = session.client("ec2", region_name="us-east-1", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(HgpuError, match="AWS doesn't know you"), told():
        lost.describe_instances()
