"""`hgpu profile --on` as a user runs it, on machines that run their real script; no secret gets anywhere."""

import pytest
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
SPEC = """\
kind: serve
model: meta-llama/Llama-3.2-1B
workload: {lengths: sharegpt, rate_rps: 8}
slo: {tpot_ms: 120}
gpus: [L4, A10G]
engine: {max_num_batched_tokens: 128, max_num_seqs: 4, max_model_len: 512, kv_cache_gib: 1}
"""
INSTALL = "hgpu @ https://example.org/hgpu.whl"
LIVING = ("pending", "running", "stopping", "stopped", "shutting-down")


@pytest.fixture
def run(hgpu, moto, tmp_path):
    """The program against moto, with a canary for every secret; its words are kept."""
    (tmp_path / "spec.yaml").write_text(SPEC)
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
