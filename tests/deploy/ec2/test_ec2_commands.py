"""`hgpu deploy`, `status` and `destroy` on AWS, as a user runs them; and that no secret gets anywhere."""

import base64
import json
import os
import pty
import subprocess
import sys

import pytest
from ec2_cases import apply, driver, leftovers, living, plan_of, pool, tagged, templates

from hgpu.core.errors import HgpuError, InputError
from hgpu.deploy.ec2.state import read_state
from hgpu.deploy.state_file import state_folder

CANARY = "canary-5ecret-value"
SECRETS = {
    "HF_TOKEN": CANARY,
    "VLLM_API_KEY": CANARY,
    "HGPU_API_KEY": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
}


@pytest.fixture
def run(hgpu, moto):
    """The program against moto, with a canary for every secret; its words are kept."""
    said = []

    def run(*words, **environment):
        done = hgpu(*words, env=moto.environment | SECRETS | environment)
        said.append(done.stdout + done.stderr)
        return done

    run.said = said
    return run


@pytest.fixture
def plan(tmp_path):
    return plan_of(tmp_path / "results", pool("l4", 1), pool("a10g-spot", 1))


def everything_in(folder):
    return [path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()]


def test_a_life_from_the_command_line(run, ec2, plan, tmp_path):
    aws = ("--target", "aws")
    shown = run("deploy", plan.short, *aws, "--name", "chat", "--diff")
    assert shown.returncode == 0 and "2 to launch" in shown.stdout and "1.20 USD/h after" in shown.stdout
    refused = run("deploy", plan.short, *aws, "--name", "chat")
    assert refused.returncode == 2 and "--yes" in refused.stderr and "+ launch l4-0" in refused.stderr
    assert living(ec2) == []
    up = run("deploy", plan.short, *aws, "--name", "chat", "--yes", "--json")
    assert up.returncode == 0, up.stderr
    document = json.loads(up.stdout)
    assert document["changed"] and len(document["machines"]) == len(living(ec2)) == 2
    assert document["engines_observed"] is False and document["completion_tokens"] == 0
    assert document["usd_per_hour"] == pytest.approx(plan.payload.allocation[0].usd_per_hour + 0.4)
    again = run("deploy", plan.short, *aws, "--name", "chat")
    assert again.returncode == 0 and "nothing changed" in again.stdout
    assert "not observed from here" in again.stdout
    assert run("status", "chat", *aws).returncode == 0
    ec2.terminate_instances(InstanceIds=[living(ec2)[0]["InstanceId"]])
    drifted = run("status", *aws, "--json")
    assert drifted.returncode == 4 and json.loads(drifted.stdout)["deployments"][0]["drift"]
    script = "".join(
        base64.b64decode(v["LaunchTemplateData"]["UserData"]).decode()
        for name in templates(ec2)
        for v in ec2.describe_launch_template_versions(LaunchTemplateName=name)["LaunchTemplateVersions"]
    )
    gone = run("destroy", "chat", *aws)
    assert gone.returncode == 0 and "1 machines stopped, none left" in gone.stdout
    assert leftovers(ec2) == [] and "nothing is deployed under results" in run("status", *aws).stdout
    assert not any(CANARY in text for text in (script, *run.said, *everything_in(tmp_path)))
    local = run("status", "--all")
    assert local.returncode == 0 and "nothing is deployed" in local.stdout


def test_a_deployment_is_supervised_until_it_is_destroyed(run, moto, ec2, plan, tmp_path):
    aws = ("--target", "aws")
    assert run("deploy", plan.short, *aws, "--name", "chat", "--yes").returncode == 0
    ec2.terminate_instances(InstanceIds=[living(ec2)[0]["InstanceId"]])
    held = run("supervise", "chat", *aws, "--once", "--replacements", "0")
    assert held.returncode == 4 and "held back: 0 of 0 an hour" in held.stderr and len(living(ec2)) == 1
    launched = run("supervise", "chat", *aws, "--once")
    assert launched.returncode == 4 and "launching" in launched.stderr and len(living(ec2)) == 2
    assert run("supervise", "chat", *aws, "--once").returncode == 0
    assert run("status", *aws).returncode == 0
    words = [sys.executable, "-m", "hgpu", "supervise", "chat", *aws, "--every", "1"]
    process = subprocess.Popen(
        words, cwd=tmp_path, env=moto.environment | SECRETS, stderr=subprocess.PIPE, text=True
    )
    try:
        ec2.terminate_instances(InstanceIds=[living(ec2)[0]["InstanceId"]])
        while "is i-" not in (line := process.stderr.readline()):
            assert line
        assert run("destroy", "chat", *aws).returncode == 0 and leftovers(ec2) == []
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
    assert not any(CANARY in text for text in (said, *run.said, *everything_in(tmp_path)))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("nobody", "--target", "aws"), "unknown deployment on aws 'nobody'"),
        (("chat", "--once", "--drain", "0"), "--once, --drain: of a deployment on aws"),
        (("chat", "--target", "kubernetes"), "nothing supervises on 'kubernetes'"),
    ],
)
def test_what_nothing_supervises_is_refused(run, words, why):
    refused = run("supervise", *words)
    assert refused.returncode == 2 and why in refused.stderr


def test_errors_tell_no_secret(run, plan):
    failed = run("deploy", plan.short, "--target", "aws", "--yes", "--security-group", "sg-0123456789abcdef0")
    assert failed.returncode == 1 and "EC2 refused RunInstances: InvalidGroup.NotFound" in failed.stderr
    assert not any(CANARY in text for text in run.said)


@pytest.mark.parametrize(
    "words",
    [
        ("--target", "aws", "--name", "../x", "--yes"),
        ("--target", "aws", "--name", "a;reboot", "--yes"),
        ("--target", "aws", "--secret", "$(id)", "--yes"),
        ("--target", "aws", "--security-group", "default", "--yes"),
        ("--target", "aws", "--subnet", "subnet-*", "--yes"),
        ("--target", "aws", "--load-format", "dummy"),
        ("--target", "aws", "--namespace", "x"),
        ("--target", "aws", "--out", "x"),
        ("--target", "local", "--yes"),
        ("--target", "aws", "--dry-run", "--diff"),
        ("--target", "kubernetes", "--subnet", "subnet-01234567"),
    ],
)
def test_names_and_options_that_do_not_belong_are_refused(run, plan, words):
    refused = run("deploy", plan.short, *words)
    assert refused.returncode == 2, refused.stderr


@pytest.mark.parametrize("name", ["../chat", "chat*", "-x", "Chat", "a" * 41])
def test_untrusted_names_do_not_reach_aws_or_the_disk(moto, tmp_path, name):
    with pytest.raises(InputError):
        driver(moto, "us-east-1").destroy(tmp_path, name)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("region", ["us-east-1.evil.example", "http://x", "..", "*"])
def test_untrusted_regions_and_instance_types_are_refused(moto, tmp_path, region):
    with pytest.raises(InputError, match="no region"):
        driver(moto, region).destroy(tmp_path, "chat")
    with pytest.raises(InputError, match="no region"):
        apply(driver(moto), plan_of(tmp_path, pool("l4", 1, region=region)), tmp_path)
    with pytest.raises(InputError, match="instance type"):
        apply(driver(moto), plan_of(tmp_path, pool("l4", 1, offer=f"aws/{region}/;")), tmp_path)


@pytest.mark.parametrize(
    ("pools", "why"),
    [
        ([pool("l4", 1, offer="gcp/g2-standard-4")], "rents machines of AWS"),
        ([pool("l4", 1, offer="gcp/g2-standard-4", region="us-central1")], "rents machines of AWS"),
        ([pool("l4", 1, market="reserved")], "on_demand and spot"),
        ([pool("l4", 1, pool="a.b"), pool("l40s", 1, pool="a-b")], "another pool's"),
        (
            [
                pool("l4", 1, pool="a", gpus_per_machine=4, engines=2, tp=2),
                pool("l4", 1, pool="b", gpus_per_machine=4, engines=3),
            ],
            "engines of one pool on a machine",
        ),
    ],
)
def test_plans_that_cannot_be_launched_are_refused(moto, tmp_path, pools, why):
    with pytest.raises(InputError) as refused:
        apply(driver(moto), plan_of(tmp_path, *pools), tmp_path)
    assert why in refused.value.why


def test_a_name_that_another_target_uses_is_refused(aws, moto, ec2, plan, tmp_path):
    apply(aws, plan, tmp_path)
    path = state_folder(tmp_path, "chat") / "state.json"
    path.write_text(path.read_text().replace('"target": "aws"', '"target": "local"'))
    with pytest.raises(InputError, match="is a deployment on 'local'"):
        read_state(path.parent)
    with pytest.raises(HgpuError, match="is a deployment on 'local'"):
        driver(moto, "us-east-1").destroy(tmp_path, "chat")
    assert len(living(ec2)) == 2 and ec2.describe_instances(Filters=tagged("chat"))["Reservations"]


@pytest.mark.parametrize(("word", "code", "machines"), [("n", 2, 0), ("y", 0, 2)])
def test_at_a_terminal_the_user_is_asked(moto, ec2, plan, tmp_path, word, code, machines):
    ours, theirs = pty.openpty()
    words = ("deploy", plan.short, "--target", "aws", "--name", "chat")
    program = subprocess.Popen(
        [sys.executable, "-m", "hgpu", *words],
        cwd=tmp_path,
        env=moto.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, f"{word}\n".encode())
    out, told = program.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert program.returncode == code, told
    assert "go ahead?" in told and "2 to launch" in told and "go ahead?" not in out
    assert len(living(ec2)) == machines
