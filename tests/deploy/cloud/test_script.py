"""A machine's script: what it may not do wrong, whatever names it is made of."""

import json
import shlex
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cloud_cases import INSTALL, jobs, options
from hypothesis import given, settings
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.deploy.cloud.options import CloudOptions, Install, Store, install_of, store_of
from hgpu.deploy.cloud.script import user_data
from hgpu.deploy.cloud.state import JobState, client_token

STATE = JobState(name="profile-g6-xlarge-0", region="us-east-1", lineage="0a1b2c3d", attempt=1)
LINE = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=40)
HOSTILE = st.sampled_from(
    ["$(touch x)", "`id`", "'; reboot; '", '"', "\\", "${HOME}", "HGPU_END", "a b", "*"]
)
WORDS = st.lists(LINE | HOSTILE, min_size=1, max_size=4).map("".join).filter(lambda word: word[0] != "-")


def job_of(model, requirement):
    (job,) = jobs("g6.xlarge")
    chosen = options(install=Install(requirement))
    return replace(job, spec={**job.spec, "model": model}, options=chosen)


def bash(script, *words, cwd=None):
    done = subprocess.run(["bash", *words, "-c", script], capture_output=True, text=True, check=True, cwd=cwd)
    return done.stdout


@settings(max_examples=25)
@given(model=st.text(max_size=60) | WORDS, requirement=WORDS)
def test_names_of_any_kind_stay_words(model, requirement):
    job = job_of(model, requirement)
    script = user_data(job, STATE)
    bash(script, "-n")
    files = script[script.index("step=files") :].partition("step=image")[0]
    tell = "uv() { printf '%s\\n' \"$@\"; }; hgpu() { :; }; . ./measure.sh"  # in place of what is called
    with tempfile.TemporaryDirectory() as folder:
        told = bash(f"{files}\n{tell}", cwd=folder)
        assert sorted(path.name for path in Path(folder).iterdir()) == ["measure.sh", "spec.yaml"]
        assert json.loads((Path(folder) / "spec.yaml").read_text())["model"] == model
    assert told == f"pip\ninstall\n--system\n{requirement}\n"


def test_the_script_is_sound_bash_and_says_what_it_does():
    (job,) = jobs("g6.xlarge", secret="hgpu-secrets")
    script = user_data(job, STATE)
    bash(script, "-n")
    lines = script.splitlines()
    assert lines[2].startswith("shutdown -h +120")  # before anything that can fail
    assert "hgpu profile /var/lib/hgpu/spec.yaml --profiler vllm" in script
    assert f"uv pip install --system {shlex.quote(INSTALL)}" in script
    assert (
        "--secret-id hgpu-secrets" in script and "s3://results/hgpu/profile-g6-xlarge-0/0a1b2c3d/1/" in script
    )


def test_a_script_that_ec2_would_not_take_is_refused():
    with pytest.raises(InputError, match="too long"):
        user_data(job_of("m", "x" * 20_000), STATE)


def test_the_token_is_of_name_lineage_and_attempt():
    again = STATE.model_copy(update={"deadline": "2026-01-01T00:00:00+00:00", "instance_id": "i-1"})
    assert client_token(again) == client_token(STATE) and len(client_token(STATE)) <= 64
    others = [{"name": "profile-x"}, {"lineage": "ffffffff"}, {"attempt": 2}]
    assert len({client_token(STATE.model_copy(update=change)) for change in [{}, *others]}) == 4


@pytest.mark.parametrize(
    "word", ["", "Bucket", "a", "b/../c", "s3://b//x", "b/$(id)", "b/a b", "-b", "b/-x/", "b/'", "http://b"]
)
def test_places_that_are_none_are_refused(word):
    with pytest.raises(InputError):
        store_of(word)


def test_places_are_read_as_people_write_them():
    assert store_of("s3://my-bucket/a/b/") == Store("my-bucket", "a/b")
    assert store_of("my-bucket") == store_of("my-bucket/") == Store("my-bucket", "hgpu")


@pytest.mark.parametrize("word", [None, "", "--index-url=http://x", "a\nb", "no-such.whl", "x\x00"])
def test_what_cannot_be_installed_is_refused(word):
    with pytest.raises(InputError):
        install_of(word)


def test_a_wheel_goes_by_its_digest(tmp_path):
    wheel = tmp_path / "hgpu-1.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    found = install_of(str(wheel))
    assert found.wheel == wheel and len(found.sha256) == 64
    wheel.write_bytes(b"another")
    assert install_of(str(wheel)).sha256 != found.sha256
    odd = tmp_path / "a b.whl"
    odd.write_bytes(b"")
    with pytest.raises(InputError):
        install_of(str(odd))


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "$(id)"},
        {"secret": "a;b"},
        {"instance_profile": "a b"},
        {"security_groups": ("default",)},
        {"subnet": "subnet-*"},
        {"deadline_min": 5},
        {"deadline_min": 100_000},
    ],
)
def test_options_that_cannot_be_are_refused(changes):
    with pytest.raises(InputError):
        CloudOptions(Store("results"), Install("hgpu"), **changes)


def test_the_name_is_of_what_is_measured_and_by_what():
    def name(**changes):
        return jobs("g6.xlarge", **changes)[0].name

    assert name() == name(deadline_min=30) == name(subnet="subnet-0123456789abcdef0")
    others = [name(spec={"engine": {"max_num_seqs": 8}}), name(install=Install("x")), name(image="x")]
    assert len({name(), jobs("g5.xlarge")[0].name, *others}) == 5


def test_a_machine_needs_no_trace_and_no_price_book_of_the_users():
    (job,) = jobs("g6.xlarge")
    assert set(job.spec) == {"kind", "model", "workload", "slo", "gpus", "tensor_parallel", "engine"}
    assert job.spec["gpus"] == ["L4"] and Path(job.spec["model"]).suffix == ".2-1B"
