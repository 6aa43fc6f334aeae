"""From a spec with variants to one job, and what tells jobs apart."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from hgpu.artifacts.digest import digest_of, file_digest
from hgpu.commands.tuning import overrides
from hgpu.core.errors import InputError
from hgpu.core.training import Sharding
from hgpu.specs.finetune import FinetuneSpec
from hgpu.tuning.job import TuneJob, job_of


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    data = tmp_path / "data.txt"
    data.write_text("words")
    return {
        "kind": "finetune",
        "model": str(tmp_path),
        "method": "lora",
        "context": 32,
        "batch": 8,
        "tokens": 25_600,
        "data": str(data),
    }


def job(document: dict[str, Any], **changes: Any) -> TuneJob:
    return job_of(FinetuneSpec.model_validate({**document, **changes}))


def test_a_spec_without_choices_is_a_job(document: dict[str, Any]) -> None:
    made = job(document, rank=4)
    assert (made.method, made.rank, made.alpha, made.micro_batch) == ("lora", 4, 8, 8)
    assert (made.steps, made.save_every_steps) == (100, 10)


@pytest.mark.parametrize(
    ("changes", "said", "fix"),
    [
        ({"method": ["lora", "full"]}, "train with: method;", "--set method=lora"),
        ({"rank": [8, 16]}, "train with: rank;", "--set rank=8; or `hgpu plan` it"),
        (
            {
                "method": ["lora", "full"],
                "rank": [8, 16],
                "micro_batch": [2, 4],
                "offload": ["none", "zero3"],
            },
            "not clear what to train with: method, rank, micro_batch, offload",
            "--set method=lora --set rank=8 --set micro_batch=2 --set offload=none;",
        ),
        ({"checkpointing": [True, False]}, "train with: checkpointing;", "--set checkpointing=true"),
        ({"offload": "zero3"}, "doesn't offload", "--set offload=none"),
        ({"micro_batch": 3}, "a batch of 8 isn't made of passes of 3", "divides 8"),
        ({"micro_batch": 8, "data_parallel": 2}, "a share of 4 of the batch of 8 isn't made", "divides 4"),
        ({"data_parallel": 3}, "a batch of 8 can't be shared by 3", "data_parallel that divides batch"),
        ({"data_parallel": [1, 2]}, "train with: data_parallel;", "--set data_parallel=1"),
        ({"data_parallel": 2, "sharding": ["none", "zero3"]}, "train with: sharding;", "--set sharding=none"),
        ({"tensor_parallel": 2}, "doesn't split layers over 2", "--set tensor_parallel=1"),
        ({"dtype": "fp16"}, "doesn't train in fp16", "bf16 or fp32"),
        ({"data": None}, "nothing to train on", "data:"),
        ({"data": "nowhere.txt"}, "no data at nowhere", "correct"),
    ],
)
def test_what_can_not_run_is_refused(
    document: dict[str, Any], changes: dict[str, Any], said: str, fix: str
) -> None:
    with pytest.raises(InputError, match=said) as raised:
        job(document, **changes)
    assert fix in raised.value.fix


def test_copies_share_a_batch_and_are_whole_unless_the_spec_says_how(document: dict[str, Any]) -> None:
    made = job(document, data_parallel=2)
    assert (made.micro_batch, made.sharding) == (4, "none")
    assert job(document, data_parallel=2, sharding="zero3").sharding == "zero3"
    assert job(document, sharding=["none", "zero3"]).sharding == "none"


def test_a_job_on_one_device_keeps_the_key_that_it_had_before_there_were_more(
    document: dict[str, Any],
) -> None:
    made = job(document, data_parallel=1, sharding="zero3")
    fields = {
        name: value for name, value in asdict(made).items() if name not in ("data_parallel", "sharding")
    }
    data = [["data.txt", file_digest(Path(made.data))]]
    (tmp,) = Path(made.model).iterdir()
    weights = [[tmp.name, tmp.stat().st_size, tmp.stat().st_mtime_ns]]
    assert made.key() == digest_of({"job": fields, "data": data, "weights": weights})
    many = [replace(made, data_parallel=2), replace(made, data_parallel=2, sharding=Sharding.ZERO3)]
    assert len({made.key(), *(one.key() for one in many)}) == 3


def test_jobs_differ_by_settings_by_data_and_by_weights(document: dict[str, Any], tmp_path: Path) -> None:
    made = job(document)
    keys = [made.key(), replace(made, seed=1).key()]
    Path(made.data).write_text("other words")
    keys.append(made.key())
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    keys.append(made.key())
    assert len(set(keys)) == 4 and made.key() == keys[-1]


def test_fields_are_set_as_yaml() -> None:
    assert overrides(["method=lora", "rank=[8, 16]", "checkpointing=true"]) == {
        "method": "lora",
        "rank": [8, 16],
        "checkpointing": True,
    }
    for bad in ("method", "=lora", "rank=[8"):
        with pytest.raises(InputError, match="--set"):
            overrides([bad])
