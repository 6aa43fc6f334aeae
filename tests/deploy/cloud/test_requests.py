"""What can't be rented, measured or brought home is refused before anything costs money."""

import json

import pytest
from cloud_cases import SPEC, fleet, jobs
from machine_room import machines

from hgpu.catalog.offers import load_offers
from hgpu.commands.cloud_profiling import profile_in_cloud
from hgpu.commands.cloud_request import CloudRequest, refuse_without_on
from hgpu.commands.profile_request import Request
from hgpu.core.errors import InputError, UnknownName
from hgpu.deploy.cloud.state import JobState, read_state, write_state
from hgpu.deploy.cloud.types import cloud_types
from hgpu.deploy.ec2.state import Ec2State
from hgpu.deploy.state_file import read_file, state_folder

ASKED = {"on": ("aws:g6.xlarge",), "bucket": "results", "install": "hgpu", "yes": True}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bucket": None}, "isn't said"),
        ({"install": None}, "get hgpu from"),
        ({"on": ("aws:g6.xxlarge",)}, "unknown instance type of aws in the price book 'g6.xxlarge'"),
        ({"on": ("gcp:g2-standard-4",)}, "unknown cloud"),
        ({"on": ("g6.xlarge",)}, "names no cloud"),
        ({"on": ("aws:g6.xlarge,aws:g6.xlarge",)}, "twice"),
        ({"on": (",",)}, "names no machine"),
        ({"on": ("aws:c7a.large",)}, "c7a.large has cpu-2core"),
        ({"on": ("aws:p5.48xlarge",)}, "no operating point for p5.48xlarge"),
        ({"region": "eu-west-1"}, "unknown region"),
        ({"yes": False}, "no go-ahead"),
        ({"deadline_min": 1}, "deadline of 1 minutes"),
    ],
)
def test_what_is_missing_or_unknown_is_said(moto, ec2, tmp_path, changes, words):
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC))
    asked = CloudRequest(**{**ASKED, **changes})
    with pytest.raises(InputError, match=words):
        profile_in_cloud(tmp_path / "spec.yaml", None, Request(tmp_path), asked, fleet(moto))
    assert machines(ec2) == []


@pytest.mark.parametrize(
    "changes", [{"url": "http://x"}, {"ray": "auto"}, {"profiler": "estimate"}, {"kv_tokens": 5}]
)
def test_options_of_other_profilers_are_refused(moto, tmp_path, changes):
    with pytest.raises(InputError, match="doesn't go with --on"):
        profile_in_cloud(
            tmp_path / "none", None, Request(tmp_path, **changes), CloudRequest(**ASKED), fleet(moto)
        )


def test_options_of_rented_machines_need_a_machine():
    refuse_without_on(CloudRequest())
    with pytest.raises(InputError, match="no machine is named"):
        refuse_without_on(CloudRequest(bucket="results"))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"tensor_parallel": [2]}, "g6.xlarge is too small"),
        ({"modes": ["offload"], "model": "Qwen/Qwen3-30B-A3B"}, "can't be profiled in mode"),
        ({"model": "HERE"}, "file or folder of this machine"),
    ],
)
def test_specs_that_no_machine_could_measure_are_refused(tmp_path, spec, words):
    if spec.get("model") == "HERE":
        (tmp_path / "config.json").write_text(
            json.dumps(
                {
                    "architectures": ["LlamaForCausalLM"],
                    "model_type": "llama",
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "num_attention_heads": 4,
                    "num_hidden_layers": 2,
                    "vocab_size": 1000,
                    "max_position_embeddings": 16384,
                    "torch_dtype": "bfloat16",
                }
            )
        )
        spec = {"model": str(tmp_path)}
    with pytest.raises(InputError, match=words):
        jobs("g6.xlarge", spec=spec)


def test_a_profiles_state_is_no_deployment(moto, tmp_path):
    (job,) = jobs("g6.xlarge")
    folder = state_folder(tmp_path, job.name)
    folder.mkdir(parents=True)
    write_state(folder, JobState(name=job.name, region="us-east-1", lineage="0"))
    with pytest.raises(InputError) as refused:
        read_file(folder, Ec2State, "aws")
    assert "hgpu profile --on" in refused.value.fix
    (folder / "state.json").write_text("{")
    with pytest.raises(InputError) as unread:
        read_state(folder)
    assert "can be swept" in unread.value.fix


def test_a_type_of_several_regions_needs_one(tmp_path):
    from dataclasses import replace

    offers = load_offers()
    (l4,) = (o for o in offers if o.name == "aws/g6.xlarge")
    both = [*offers, replace(l4, region="eu-west-1", usd_per_hour=0.9)]
    with pytest.raises(InputError, match="several regions"):
        cloud_types(["aws:g6.xlarge"], both, None)
    assert cloud_types(["aws:g6.xlarge"], both, "eu-west-1")[0].usd_per_hour == 0.9
    with pytest.raises(UnknownName):
        cloud_types(["aws:g6.xlarge"], both, "us-west-2")
    with pytest.raises(InputError, match="no region of AWS"):
        cloud_types(["aws:g6.xlarge"], [replace(l4, region="x.evil.example")], None)
