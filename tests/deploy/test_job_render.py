"""Planned fine-tunes as jobs: golden files, validators that see every wrong field, and what is refused."""

import copy
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from hgpu.artifacts.payloads.job import JobPayload
from hgpu.artifacts.store import load
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.gpu import DType
from hgpu.core.training import Offload, Sharding
from hgpu.deploy.render.document import Document
from hgpu.deploy.render.tune import JOB_TARGETS, job_target, render_job
from hgpu.deploy.render.write import text_of
from hgpu.specs.finetune import FinetuneSpec
from hgpu.specs.load import load_kind
from hgpu.tuning.job import job_of

# SkyPilot's imports warn.
pytestmark = pytest.mark.filterwarnings("ignore" if find_spec("sky") else "error")
PLAN: JobPayload = load(Path(__file__).parents[1] / "artifacts" / "golden" / "job.v1").payload
GOLDEN = Path(__file__).parent / "golden" / "jobs"
CRDS = Path(os.environ.get("HGPU_CRDS", Path(__file__).parents[3] / "shared" / "crds"))
FREE = {"labels", "annotations", "matchLabels", "selector", "limits", "requests", "accelerators"}
FREE |= {"secrets", "data", "file_mounts"}
TORCHRUN = "torchrun --nnodes $HGPU_NODES --node-rank $HGPU_NODE_RANK train.py"


def with_variant(plan: JobPayload, machines: int = 1, **changes: Any) -> JobPayload:
    """The plan with another variant."""
    variant = replace(plan.choice.variant, **changes)
    choice = plan.choice.model_copy(
        update={"variant": variant, "machines": machines, "gpus_per_machine": variant.gpus // machines}
    )
    return plan.model_copy(update={"choice": choice})


WIDE = with_variant(PLAN, machines=2, dp=16, micro_batch=1, sharding=Sharding.ZERO3)


def documents(target: str, wide: bool) -> list[Document]:
    given = {} if target == "sky" else {"image": "registry/hgpu-tune:1"}
    return render_job(WIDE if wide else PLAN, "0123456789ab", target, given, None, None)


CASES = [(target, wide) for target in JOB_TARGETS for wide in (False, True)]


@pytest.mark.parametrize(("target", "wide"), CASES)
def test_a_job_on_one_machine_and_on_two_renders_as_the_golden_files(target: str, wide: bool) -> None:
    """After a change that is meant: HGPU_BLESS=1 pytest tests/deploy/test_job_render.py, and see the diff."""
    folder = GOLDEN / (f"{target}-two" if wide else target)
    made = {document.path: text_of(document) for document in documents(target, wide)}
    if os.environ.get("HGPU_BLESS"):
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in made.items():
            (folder / path).write_text(text)
    assert made == {path.name: path.read_text() for path in folder.iterdir()}


def checked(target: str, wide: bool) -> list[Document]:
    """The documents that can be checked here."""
    if target == "sky" and find_spec("sky") is None:
        pytest.skip("needs the extra `sky`")
    made = [d for d in documents(target, wide) if not isinstance(d.body, str)]
    return [d for d in made if CRDS.is_dir() or d.body.get("kind") != "LeaderWorkerSet"]


@pytest.mark.parametrize(("target", "wide"), CASES)
def test_every_object_is_what_its_target_takes_and_no_wrong_field_passes(target: str, wide: bool) -> None:
    tried = 0
    for document in checked(target, wide):
        assert JOB_TARGETS[target].check(document, CRDS) == ""
        for path in places(document.body):
            body = copy.deepcopy(document.body)
            where: Any = body
            for step in path:
                where = where[step]
            where["wrongField"] = "x"
            with pytest.raises(InputError, match="wrongField"):
                JOB_TARGETS[target].check(Document(document.path, body), CRDS)
            tried += 1
    assert tried >= 2


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every map in an object whose fields have a meaning, by its path."""
    found: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        if not path or path[-1] not in FREE or "matchLabels" in value:
            found.append(path)
        for key, part in value.items():
            found += places(part, (*path, key))
    if isinstance(value, list):
        for number, part in enumerate(value):
            found += places(part, (*path, number))
    return found


@pytest.mark.parametrize(("target", "wide"), CASES)
def test_the_spec_that_travels_is_one_that_tune_takes(target: str, wide: bool, tmp_path: Path) -> None:
    """It has one value where the plan's spec had lists, and the data where the job finds it."""
    (first, *_) = documents(target, wide)
    assert not isinstance(first.body, str)
    text = first.body["data"]["finetune.yaml"] if target != "sky" else _heredoc(first.body["setup"])
    (tmp_path / "finetune.yaml").write_text(text)
    spec = load_kind(tmp_path / "finetune.yaml", FinetuneSpec)
    variant = (WIDE if wide else PLAN).choice.variant
    data = tmp_path / "train.jsonl"
    data.touch()
    job = job_of(spec.model_copy(update={"data": str(data)}))
    assert (job.data_parallel, job.sharding) == (variant.dp, variant.sharding)
    assert (spec.method, spec.rank) == ([variant.method], [variant.rank])
    assert (spec.micro_batch, spec.checkpointing) == ([variant.micro_batch], [variant.checkpointing])
    assert spec.total_steps == PLAN.steps
    assert spec.data == ("hgpu-data/train.jsonl" if target == "sky" else "/data/train.jsonl")
    assert yaml.safe_load(text)["learning_rate"] == PLAN.spec["learning_rate"]


def _heredoc(script: str) -> str:
    return script.partition("<<'HGPU_END'\n")[2].removesuffix("HGPU_END")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (with_variant(PLAN, tp=8), "split layers over GPUs, and the plan does over 8"),
        (with_variant(PLAN, offload=Offload.ZERO3), "doesn't offload, and the plan does: zero3"),
        (PLAN.model_copy(update={"model": replace(PLAN.model, weight_dtype=DType.FP16)}), "train in fp16"),
        (PLAN.model_copy(update={"spec": {**PLAN.spec, "data": None}}), "has no `data`"),
        (PLAN.model_copy(update={"model_source": "/models/qwen"}), "folder of this machine"),
    ],
)
def test_what_tune_or_another_machine_cannot_do_is_refused(plan: JobPayload, words: str) -> None:
    with pytest.raises(InputError) as caught:
        render_job(plan, "0123456789ab", "sky", {}, None, None)
    assert words in str(caught.value) and caught.value.fix


def test_a_command_takes_the_place_of_tune_where_that_cannot_run_the_plan() -> None:
    split = with_variant(PLAN, machines=2, tp=8, dp=2)
    (task,) = render_job(split, "0123456789ab", "sky", {}, TORCHRUN, None)
    assert not isinstance(task.body, str) and f"sh -c '{TORCHRUN}'" in task.body["run"]


def test_a_job_needs_an_image_on_kubernetes_and_a_target_that_is_known() -> None:
    with pytest.raises(InputError, match="no container image"):
        render_job(PLAN, "0123456789ab", "kubernetes", {}, None, None)
    with pytest.raises(UnknownName, match="target of a fine-tune 'aws'"):
        job_target("aws")
