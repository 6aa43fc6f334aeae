"""What lies in the bucket may be anybody's: only profiles that were asked for get into the store."""

import json
import tarfile

import pytest
from cloud_cases import Quick, fleet, jobs, living, objects, packed, sent, silent, status_of, tar_of

from hgpu.artifacts.resolve import entries

L4 = "g6.xlarge"


def outcome(moto, root, files, job=None):
    (job,) = [job] if job else jobs(L4)
    quick = Quick(moto, {L4: files})
    return fleet(moto, s3=quick.client(moto)).run([job], root, silent)[job.name]


def damaged(points):
    """A profile whose samples were edited."""
    import io

    with tarfile.open(fileobj=io.BytesIO(packed(points))) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    return tar_of({name: data + b"x" if name.endswith(".parquet") else data for name, data in files.items()})


def hostile():
    (job,) = jobs(L4)
    (other,) = jobs("g5.xlarge")
    good = packed(job.points)
    return {
        "another digest": {**sent(good), "status.json": status_of(b"something else")},
        "no tar": sent(b"not a tar"),
        "cut short": sent(good[: len(good) // 2]),
        "garbled": sent(good[:40] + bytes(byte ^ 0x55 for byte in good[40:])),
        "edited": sent(damaged(job.points)),
        "another GPU": sent(packed(other.points)),
        "another model": sent(packed(job.points, model="Qwen/Qwen3-8B")),
        "another setting": sent(packed(job.points, repeats=1)),
        "no status": {"status.json": b"all is well"},
        "a status with more": {
            "status.json": json.dumps({"rc": 0, "step": "", "sha256": "", "x": 1}).encode()
        },
        "an endless status": {"status.json": b" " * 10_000},
        "nothing": sent(b""),
    }


@pytest.mark.parametrize("name", list(hostile()))
def test_what_was_not_asked_for_is_refused_and_the_machine_ends(moto, ec2, s3, tmp_path, name):
    root = tmp_path / "results"
    found = outcome(moto, root, hostile()[name])
    assert found.error is not None and found.profiles == ()
    assert entries(root) == [] and living(ec2) == [] and objects(s3) == []
    assert not list(root.glob("state/*/unpacked"))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_names_and_links_that_lead_elsewhere_are_never_written(moto, tmp_path, kind):
    root = tmp_path / "results"
    names = [
        "../../../../out",
        "/tmp/out-of-it",
        "profile/../x/manifest.json",
        "profile/a/../../b",
        "profile/.x/y",
    ]
    found = outcome(moto, root, sent(tar_of(dict.fromkeys(names, b"x"), kind)))
    assert found.error is not None
    assert not [p for p in tmp_path.rglob("*") if p.name in ("out", "x", "b", "y")]


def test_a_profile_that_is_there_already_is_kept_once(moto, tmp_path):
    (job,) = jobs(L4)
    first = outcome(moto, tmp_path, sent(packed(job.points)), job)
    second = outcome(moto, tmp_path, sent(packed(job.points)), job)
    assert first.profiles[0].path == second.profiles[0].path and len(entries(tmp_path, "profile")) == 1
