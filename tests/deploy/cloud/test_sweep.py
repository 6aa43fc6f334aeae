"""Machines past their deadline are taken away by whoever comes along, and no others."""

from datetime import timedelta

import pytest
from cloud_cases import NOW, Quick, fleet, jobs, living, silent, sound
from ec2_faults import Faults
from machine_room import machines, tags_of

from hgpu.core.errors import HgpuError

PAST, AHEAD = ((NOW + timedelta(minutes=m)).isoformat() for m in (-1, 1))


def machine(client, **tags):
    rows = [{"Key": f"hgpu:{key}", "Value": value} for key, value in tags.items()]
    answer = client.run_instances(
        ImageId="ami-1",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": rows}],
    )
    return answer["Instances"][0]["InstanceId"]


@pytest.fixture
def world(ec2):
    """A machine past its deadline, and five that aren't or that never had any of this kind."""
    return {
        "late": machine(ec2, deployment="profile-g6-xlarge-1", deadline=PAST, lineage="another's"),
        "ahead": machine(ec2, deployment="profile-g6-xlarge-1", deadline=AHEAD),
        "serving": machine(ec2, deployment="chat", deadline=PAST),
        "never": machine(ec2, deployment="profile-g6-xlarge-1"),
        "garbled": machine(ec2, deployment="profile-g6-xlarge-1", deadline="soon"),
        "zoneless": machine(ec2, deployment="profile-g6-xlarge-1", deadline="2020-01-01T00:00:00"),
    }


def test_only_what_profiles_past_its_deadline_is_taken_away(moto, ec2, world):
    said = []
    assert fleet(moto).sweep(["us-east-1"], said.append) == [world["late"]]
    assert set(living(ec2)) == set(world.values()) - {world["late"]}
    assert sum("no deadline that can be read" in text for text in said) == 2
    assert fleet(moto).sweep(["us-east-1"], silent) == []


def test_every_start_sweeps_first(moto, ec2, world, tmp_path):
    (job,) = jobs("g6.xlarge")
    quick = Quick(moto, sound([job]))
    assert fleet(moto, s3=quick.client(moto)).run([job], tmp_path, silent)[job.name].error is None
    assert world["late"] not in living(ec2) and world["ahead"] in living(ec2)


def test_a_machine_that_cannot_be_swept_stands_in_nobodys_way(moto, ec2, world, tmp_path):
    (job,) = jobs("g6.xlarge")
    client, said = moto.client(), []
    Faults(client).add("TerminateInstances", "UnauthorizedOperation")
    quick = Quick(moto, sound([job]))
    found = fleet(moto, ec2=client, s3=quick.client(moto)).run([job], tmp_path, said.append)[job.name]
    assert found.error is None and world["late"] in living(ec2)
    assert any("past their deadline may still run" in text for text in said)
    with pytest.raises(HgpuError, match="UnauthorizedOperation"):
        fleet(moto, ec2=client).sweep(["us-east-1"], silent)


def test_the_deadline_stands_in_the_tags_from_the_launch_on(moto, ec2, tmp_path):
    (job,) = jobs("g6.xlarge", deadline_min=30)
    quick = Quick(moto, sound([job]))
    fleet(moto, s3=quick.client(moto)).run([job], tmp_path, silent)
    (row,) = machines(ec2)
    assert tags_of(row)["hgpu:deadline"] == (NOW + timedelta(minutes=30)).isoformat()
    assert tags_of(row)["hgpu:type"] == "g6.xlarge" and tags_of(row)["hgpu:deployment"] == job.name
