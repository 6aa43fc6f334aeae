"""The shipped policies allow what hgpu and its machines call, and nothing that they never do."""

import fnmatch
import json
import re
from pathlib import Path

import pytest
from cloud_cases import BUCKET, Quick, fleet, jobs, living, silent, sound
from ec2_faults import Faults
from machine_room import machines, script_of

from hgpu.core.errors import HgpuError
from hgpu.deploy.cloud.options import install_of

ROOT = Path(__file__).parents[3]
# APIs of S3 by the action that allows them.
ACTIONS = {"ListObjectsV2": "ListBucket"}


def statements(name):
    return json.loads((ROOT / "docs" / "iam" / name).read_text())["Statement"]


def listed(value):
    return value if isinstance(value, list) else [value]


def allowed(name):
    return {action for row in statements(name) for action in listed(row["Action"])}


def resources(name, action):
    rows = [row for row in statements(name) if action in listed(row["Action"])]
    return [value.replace("BUCKET", BUCKET) for row in rows for value in listed(row["Resource"])]


@pytest.fixture
def life(moto, tmp_path):
    """All calls of a profile with a wheel, and of a sweep: names with parameters."""
    wheel = tmp_path / "hgpu-1.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    (job,) = jobs("g6.xlarge", install=install_of(str(wheel)), secret="hgpu-secrets")
    quick = Quick(moto, sound([job]))
    ec2, s3, calls = moto.client(), quick.client(moto), []

    def called_with(params, model, **_):
        calls.append((model.service_model.service_name, model.name, params))

    ec2.meta.events.register("before-parameter-build.ec2", called_with)
    s3.meta.events.register("before-parameter-build.s3", called_with)
    assert fleet(moto, ec2=ec2, s3=s3).run([job], tmp_path, silent)[job.name].error is None
    looking = moto.client()
    assert living(looking) == []
    return calls, script_of(looking, machines(looking)[0]["InstanceId"])


def test_the_policy_is_exactly_what_a_whole_life_calls(life):
    calls, _ = life
    called = {f"{service}:{ACTIONS.get(name, name)}" for service, name, _ in calls}
    (launch,) = (params for _, name, params in calls if name == "RunInstances")
    # What EC2 does in the caller's name, and the parameter that makes it do so.
    implied = {
        "ec2:CreateTags": bool(launch["TagSpecifications"]),
        "iam:PassRole": bool(launch["IamInstanceProfile"]["Name"]),
        "ssm:GetParameters": launch["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/ami/"),
    }
    assert all(implied.values())
    # Quick ends its machine by itself; that hgpu takes others away is held by test_work.
    assert allowed("profile-aws.json") == called | set(implied) | {"ec2:TerminateInstances"}
    kinds = {row["ResourceType"] for row in launch["TagSpecifications"]}
    tags = {tag["Key"] for row in launch["TagSpecifications"] for tag in row["Tags"]}
    assert kinds == {"instance", "volume"} and {"hgpu:deployment", "hgpu:deadline"} <= tags


def test_every_object_that_is_touched_lies_where_the_policies_allow_it(life):
    calls, script = life
    keys = [(name, params["Key"]) for service, name, params in calls if service == "s3" and "Key" in params]
    assert {name for name, _ in keys} == {"PutObject", "GetObject", "DeleteObject"}
    for name, key in keys:
        (arn,) = resources("profile-aws.json", f"s3:{name}")
        assert fnmatch.fnmatchcase(f"arn:aws:s3:::{BUCKET}/{key}", arn), key
    (put,), (get,) = (resources("profile-machine-aws.json", f"s3:{verb}Object") for verb in ("Put", "Get"))
    sent, fetched = re.findall(r"s3://(\S+/)\"\$2\"", script), re.findall(r"s3://(\S+\.whl) ", script)
    assert len(sent) == len(fetched) == 1
    assert fnmatch.fnmatchcase(f"arn:aws:s3:::{sent[0]}status.json", put)
    assert fnmatch.fnmatchcase(f"arn:aws:s3:::{fetched[0]}", get)
    # Only a wheel can be fetched: no machine reads another one's results.
    assert not fnmatch.fnmatchcase(f"arn:aws:s3:::{sent[0]}artifacts.tar.gz", get)
    for _, _, params in calls:
        if "Prefix" in params:
            assert params["Prefix"].startswith("hgpu/")


def test_machines_may_do_what_their_script_does_and_no_more(life):
    _, script = life
    assert "aws s3 cp" in script and "aws secretsmanager get-secret-value" in script
    assert set(re.findall(r"aws (\w+) ", script)) == {"s3", "secretsmanager"}
    wanted = {"s3:PutObject", "s3:GetObject", "secretsmanager:GetSecretValue"}
    assert allowed("profile-machine-aws.json") == wanted


def test_a_missing_right_names_the_policies(moto, tmp_path):
    (job,) = jobs("g6.xlarge")
    client = moto.client()
    Faults(client).add("RunInstances", "UnauthorizedOperation")
    found = fleet(moto, ec2=client).run([job], tmp_path, silent)[job.name]
    assert isinstance(found.error, HgpuError) and "docs/iam" in found.error.fix
