"""Machines that profile, whatever fails on the way: results are kept, and nothing runs on."""

from datetime import timedelta
from itertools import count

import pytest
from botocore.exceptions import ReadTimeoutError
from cloud_cases import NOW, Quick, fleet, jobs, living, objects, packed, sent, silent, sound
from ec2_faults import Faults
from machine_room import machines, script_of, tags_of

from hgpu.artifacts.resolve import entries
from hgpu.core.errors import EngineError, HgpuError, Infeasible, InputError
from hgpu.deploy.cloud.state import Step, read_state
from hgpu.deploy.state_file import state_folder

L4, A10G = "g6.xlarge", "g5.xlarge"


def passing_minutes():
    """A clock of which every look takes a minute."""
    minutes = count()
    return lambda: NOW + timedelta(minutes=next(minutes))


def state_of(root, job):
    return read_state(state_folder(root, job.name))


def test_both_types_come_home_and_end(moto, ec2, s3, tmp_path):
    made = jobs(L4, A10G)
    quick = Quick(moto, sound(made))
    outcomes = fleet(moto, s3=quick.client(moto)).run(made, tmp_path, silent)
    assert [o.error for o in outcomes.values()] == [None, None]
    assert {p.payload.point.gpu for o in outcomes.values() for p in o.profiles} == {"L4", "A10G"}
    assert living(ec2) == [] and objects(s3) == []
    assert [state_of(tmp_path, job).step for job in made] == [Step.ENDED] * 2
    assert len(entries(tmp_path, "profile")) == 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("InsufficientInstanceCapacity", Infeasible),
        ("VcpuLimitExceeded", Infeasible),
        ("Unsupported", Infeasible),
        ("InvalidParameterValue", HgpuError),
        ("UnauthorizedOperation", HgpuError),
    ],
)
def test_a_type_that_cannot_be_had_costs_the_other_nothing(moto, ec2, tmp_path, code, error):
    made = jobs(L4, A10G)
    client = moto.client()
    Faults(client).add("RunInstances", code, message="not here", InstanceType=A10G)
    quick = Quick(moto, sound(made))
    outcomes = fleet(moto, ec2=client, s3=quick.client(moto)).run(made, tmp_path, silent)
    l4, a10g = (outcomes[job.name] for job in made)
    assert l4.error is None and [p.payload.point.gpu for p in l4.profiles] == ["L4"]
    assert type(a10g.error) is error and code in f"{a10g.error}" and a10g.profiles == ()
    assert living(ec2) == [] and len(machines(ec2)) == 1
    assert state_of(tmp_path, made[1]).step is Step.ENDED


def test_a_machine_that_fails_says_why_and_the_next_try_is_another_machine(moto, ec2, s3, tmp_path):
    (job,) = jobs(L4)
    log = b"step\nRuntimeError: CUDA out of memory\n"
    quick = Quick(moto, {L4: sent(b"", rc=1, log=log)})
    work = fleet(moto, s3=quick.client(moto))
    failed = work.run([job], tmp_path, silent)[job.name]
    assert isinstance(failed.error, EngineError) and "CUDA out of memory" in failed.error.why
    assert (state_folder(tmp_path, job.name) / "log.txt").read_bytes() == log
    assert living(ec2) == [] and objects(s3) == [] and entries(tmp_path, "profile") == []
    quick.sends = sound([job])
    assert work.run([job], tmp_path, silent)[job.name].error is None
    assert [tags_of(row)["hgpu:attempt"] for row in machines(ec2)] == ["1", "2"]


def test_what_was_measured_before_the_machine_failed_is_kept(moto, ec2, tmp_path):
    (job,) = jobs("g6.12xlarge", spec={"tensor_parallel": [1, 2]})
    tar = packed(job.points[:1])
    quick = Quick(moto, {"g6.12xlarge": sent(tar, rc=124)})
    found = fleet(moto, s3=quick.client(moto)).run([job], tmp_path, silent)[job.name]
    assert [p.payload.point for p in found.profiles] == [job.points[0]]
    assert job.points[1].name in found.error.what and "before its deadline" in found.error.why
    assert living(ec2) == []


def test_a_machine_that_ends_without_a_word_is_an_error(moto, ec2, tmp_path):
    (job,) = jobs(L4)
    quick = Quick(moto, {L4: {}})
    found = fleet(moto, s3=quick.client(moto)).run([job], tmp_path, silent)[job.name]
    assert "sent nothing" in found.error.what and "terminated" in found.error.why
    assert living(ec2) == []


def test_a_machine_that_hangs_is_taken_away_at_its_deadline(moto, ec2, tmp_path):
    (job,) = jobs(L4, deadline_min=60)
    said = []
    found = fleet(moto, now=passing_minutes()).run([job], tmp_path, said.append)[job.name]
    assert any("g6.xlarge: at work for" in text for text in said)
    assert "its deadline" in found.error.why and living(ec2) == [] and len(machines(ec2)) == 1


def test_a_launch_without_an_answer_is_found_by_its_tags_and_taken_away(moto, ec2, tmp_path):
    """The machine runs, and the answer of EC2 is lost on its way."""
    (job,) = jobs(L4)
    client = moto.client()

    def lose(**_):
        raise ReadTimeoutError(endpoint_url="http://ec2")

    client.meta.events.register("after-call.ec2.RunInstances", lose)
    found = fleet(moto, ec2=client).run([job], tmp_path, silent)[job.name]
    assert "AWS can't be used" in found.error.what
    assert living(ec2) == [] and len(machines(ec2)) == 1
    assert state_of(tmp_path, job).step is Step.ENDED


def test_a_token_that_is_known_from_something_else_is_spent(moto, tmp_path):
    (job,) = jobs(L4)
    client = moto.client()
    faults = Faults(client)
    faults.add("RunInstances", "IdempotentParameterMismatch")
    found = fleet(moto, ec2=client).run([job], tmp_path, silent)[job.name]
    assert "can't be launched" in found.error.what
    tokens = [asked["ClientToken"] for name, asked in faults.calls if name == "RunInstances"]
    assert len(set(tokens)) == len(tokens) == 3


def test_where_a_machine_cannot_be_taken_away_that_is_told_and_the_same_command_goes_on(moto, ec2, tmp_path):
    (job,) = jobs(L4)
    client, said = moto.client(), []
    Faults(client).add("TerminateInstances", "InternalFailure")
    found = fleet(moto, ec2=client, now=passing_minutes()).run([job], tmp_path, said.append)[job.name]
    assert "its deadline" in found.error.why  # what failed first isn't lost
    assert any("may still run" in text for text in said) and len(living(ec2)) == 1
    assert state_of(tmp_path, job).step is Step.RUNNING
    quick = Quick(moto, sound([job]))
    assert fleet(moto, s3=quick.client(moto)).run([job], tmp_path, silent)[job.name].error is None
    assert living(ec2) == [] and len(machines(ec2)) == 1  # it went on with the same machine


def test_without_the_bucket_nothing_is_launched(moto, ec2, s3, tmp_path):
    s3.delete_bucket(Bucket="results")
    with pytest.raises(InputError, match="bucket results can't be used: NoSuchBucket"):
        fleet(moto).run(jobs(L4), tmp_path, silent)
    assert machines(ec2) == []


def test_machines_are_launched_to_end_by_themselves(moto, ec2, tmp_path):
    (job,) = jobs(L4)
    client, asked = moto.client(), []
    client.meta.events.register(
        "provide-client-params.ec2.RunInstances", lambda params, **_: asked.append(params)
    )
    quick = Quick(moto, sound([job]))
    fleet(moto, ec2=client, s3=quick.client(moto)).run([job], tmp_path, silent)
    (params,) = asked
    assert params["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert params["MetadataOptions"]["HttpTokens"] == "required"
    assert params["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    (row,) = machines(ec2)
    first = next(line for line in script_of(ec2, row["InstanceId"]).splitlines() if not line.startswith("#"))
    assert first == "shutdown -h +120 || shutdown -h now"
