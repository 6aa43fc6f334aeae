"""The shipped policy allows what the driver calls, and nothing that it never does."""

import base64
import json
from pathlib import Path

from ec2_cases import apply, driver, leftovers, living, plan_of, pool, templates

from hgpu.artifacts.resolve import resolve
from hgpu.deploy.state import Phase

ROOT = Path(__file__).parents[3]


def allowed(path):
    rows = json.loads((ROOT / path).read_text())["Statement"]
    actions = [row["Action"] if isinstance(row["Action"], list) else [row["Action"]] for row in rows]
    return {action for row in actions for action in row}


def test_the_policy_is_exactly_what_a_whole_life_calls(moto, ec2, tmp_path):
    client = moto.client()
    calls = []

    def called_with(model, params, **_):
        calls.append((model.name, params))

    client.meta.events.register("before-call.ec2", called_with)
    aws = driver(moto, clients=lambda: lambda _: client)
    old = plan_of(tmp_path, pool("l4", 1), pool("a10g-spot", 1))
    apply(aws, old, tmp_path)
    ec2.terminate_instances(InstanceIds=[living(ec2)[0]["InstanceId"]])
    aws.status(tmp_path)
    apply(aws, old, tmp_path)
    keeper = aws.keeper(
        tmp_path, "chat", lambda digest: resolve(tmp_path, digest, "plan"), lambda _: {}, None, print
    )
    ec2.terminate_instances(InstanceIds=[living(ec2)[0]["InstanceId"]])
    while keeper.look().phase is not Phase.READY:
        pass
    apply(aws, plan_of(tmp_path, pool("l40s", 1)), tmp_path)
    spec = [{"ResourceType": "volume", "Tags": [{"Key": "hgpu:deployment", "Value": "chat"}]}]
    ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, TagSpecifications=spec)
    aws.destroy(tmp_path, "chat")
    assert leftovers(ec2) == []
    called = {f"ec2:{name}" for name, _ in calls}
    bodies = {name: str(params["body"]) for name, params in calls}
    # What EC2 does in the caller's name, and the parameter that makes it do so.
    implied = {
        "ec2:CreateTags": "TagSpecification.1.Tag.1.Key" in bodies["RunInstances"],
        "iam:PassRole": "LaunchTemplateData.IamInstanceProfile.Name" in bodies["CreateLaunchTemplate"],
        "ssm:GetParameters": "resolve:ssm:/aws/service/deeplearning/ami/" in bodies["CreateLaunchTemplate"],
    }
    assert all(implied.values())
    assert allowed("docs/iam/deploy-aws.json") == called | set(implied)


def test_machines_may_only_read_the_secret_that_their_script_reads(ec2, aws, tmp_path):
    apply(aws, plan_of(tmp_path, pool("l4", 1)), tmp_path)
    (name,) = templates(ec2)
    (version,) = ec2.describe_launch_template_versions(LaunchTemplateName=name)["LaunchTemplateVersions"]
    script = base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode()
    assert "aws secretsmanager get-secret-value" in script and "--secret-id hgpu-secrets" in script
    assert allowed("docs/iam/machine-aws.json") == {"secretsmanager:GetSecretValue"}
    aws.destroy(tmp_path, "chat")
