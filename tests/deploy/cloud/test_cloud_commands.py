"""`hgpu profile --on` as a user runs it, on machines that run their real script; no secret gets anywhere."""

import json
import signal
import subprocess
import sys

import pytest
from cloud_cases import SPEC, living
from machine_room import machines, script_of, tags_of

from hgpu.artifacts.resolve import entries
from hgpu.artifacts.store import load

CANARY = "canary-5ecret-value"
SECRETS = {
    "HF_TOKEN": CANARY,
    "VLLM_API_KEY": CANARY,
    "HGPU_API_KEY": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
}
SMALL = {"max_num_batched_tokens": 128, "max_num_seqs": 4, "max_model_len": 512, "kv_cache_gib": 1}
USUAL = ("--bucket", "results", "--poll", "0.05", "--repeats", "1", "--budget", "0")
INSTALL = "hgpu @ https://example.org/hgpu.whl"


@pytest.fixture
def run(hgpu, moto, tmp_path):
    """The program against moto, with a canary for every secret; its words are kept."""
    (tmp_path / "spec.yaml").write_text(json.dumps({**SPEC, "engine": SMALL}))
    said = []

    def run(on, *words, **environment):
        usual = (
            "--bucket",
            "results",
            "--install",
            INSTALL,
            "--poll",
            "0.05",
            "--repeats",
            "1",
            "--budget",
            "0",
        )
        done = hgpu(
            "profile", "spec.yaml", "--on", on, *usual, *words, env=moto.environment | SECRETS | environment
        )
        said.append(done.stdout + done.stderr)
        return done

    run.said = said
    return run


def texts_in(folder):
    return [path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()]


def test_two_types_are_measured_at_once_and_taken_away(run, room, ec2, s3, tmp_path):
    done = run("aws:g6.xlarge,aws:g5.xlarge", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert "3.62 USD at most" in done.stderr
    profiles = [load(entry.path) for entry in entries(tmp_path / "results", "profile")]
    assert {p.payload.point.gpu for p in profiles} == {"L4", "A10G"}
    assert {p.payload.provenance for p in profiles} == {"measured"} and all(
        p.payload.samples for p in profiles
    )
    assert {p.manifest.environment.engine for p in profiles} == {"vllm stand-in"}
    gone = machines(ec2)
    assert [row["State"]["Name"] for row in gone] == ["terminated"] * 2
    assert {row["InstanceType"] for row in gone} == {"g6.xlarge", "g5.xlarge"}
    assert all(tags_of(row)["hgpu:deadline"] for row in gone)
    assert "Contents" not in s3.list_objects_v2(Bucket="results")
    scripts = [script_of(ec2, row["InstanceId"]) for row in gone]
    assert not any(CANARY in text for text in (*scripts, *run.said, *texts_in(tmp_path)))


def test_a_wheel_and_a_secret_reach_the_machine_and_one_that_fails_costs_the_other_nothing(
    run, room, moto, ec2, s3, tmp_path
):
    moto.client(service="secretsmanager").create_secret(
        Name="hgpu-secrets", SecretString="HF_TOKEN=the-models"
    )
    wheel = tmp_path / "hgpu-1.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    room.faults = {"g5.xlarge": {"docker": "Error response from daemon: manifest unknown"}}
    done = run("aws:g6.xlarge,aws:g5.xlarge", "--install", str(wheel), "--secret", "hgpu-secrets", "--yes")
    assert done.returncode == 1, done.stderr
    assert "g5.xlarge did not profile A10G: its step 'image' ended with exit code 7" in done.stderr
    assert "manifest unknown" in done.stderr and "saved" in done.stderr
    (entry,) = entries(tmp_path / "results", "profile")
    assert load(entry.path).payload.point.gpu == "L4"
    ((*_, source),) = room.notes("uv")
    assert source.endswith("/hgpu-1.0-py3-none-any.whl")
    ((*words, token),) = room.notes("hgpu")
    assert token == "token" and words[0] == "profile"
    assert room.notes("shutdown").count(["+120"]) == room.notes("shutdown").count(["now"]) == 2
    assert living(ec2) == [] and "Contents" not in s3.list_objects_v2(Bucket="results")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_takes_the_machines_away(moto, ec2, tmp_path, number):
    (tmp_path / "spec.yaml").write_text(json.dumps({**SPEC, "engine": SMALL}))
    words = ("--on", "aws:g6.xlarge,aws:g5.xlarge", *USUAL, "--install", INSTALL, "--yes")
    program = subprocess.Popen(
        [sys.executable, "-m", "hgpu", "profile", "spec.yaml", *words],
        cwd=tmp_path,
        env=moto.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = 0
    for line in program.stderr:
        running += " is i-" in line
        if running == 2:
            break
    assert len(living(ec2)) == 2
    program.send_signal(number)
    _, told = program.communicate(timeout=120)
    assert program.returncode == 130 and "taking all machines away" in told, told
    assert living(ec2) == [] and len(machines(ec2)) == 2


def test_without_a_go_ahead_nothing_is_launched(run, ec2):
    refused = run("aws:g6.xlarge")
    assert refused.returncode == 2 and "1.61 USD at most" in refused.stderr and "--yes" in refused.stderr
    assert machines(ec2) == []


def test_without_credentials_nothing_is_launched(run, ec2):
    refused = run("aws:g6.xlarge", "--yes", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert refused.returncode == 2 and "AWS doesn't know you" in refused.stderr
    assert machines(ec2) == []


def test_sweeping_needs_no_bucket_and_launches_nothing(run, ec2, tmp_path):
    done = run("aws:g6.xlarge", "--sweep")
    assert done.returncode == 0 and "0 machines were past their deadline" in done.stderr and done.stdout == ""
    assert machines(ec2) == []
