"""A planned fine-tune as a job: `hgpu tune` of its spec, with the plan's choice in place of every list."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from hgpu import __version__
from hgpu.artifacts.payloads.job import JobPayload
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.training import not_tuned
from hgpu.deploy.render.batch import (
    DATA_FOLDER,
    SKY_DATA,
    SKY_SPEC,
    SPEC_FOLDER,
    BatchJob,
    kubernetes_job,
    lws_job,
    sky_job,
)
from hgpu.deploy.render.document import LONGEST_NAME, Document, RenderOptions
from hgpu.deploy.render.validate import Check, check_objects, check_sky

SPEC = "finetune.yaml"
OF_PLANS = ("gpus", "host", "offers", "limits", "deadline_h", "budget_usd")  # not of the training itself
CLAIM = "hgpu-data"
KUBECTL = "kubectl apply --server-side --field-manager hgpu --recursive --filename {out}"


@dataclass(frozen=True, slots=True)
class JobTarget:
    """How to render a job, how to check its documents, and the command that applies them by hand."""

    render: Callable[[BatchJob, RenderOptions], list[Document]]
    check: Check
    by_hand: str


JOB_TARGETS = {
    "kubernetes": JobTarget(kubernetes_job, check_objects, KUBECTL),
    "lws": JobTarget(lws_job, check_objects, KUBECTL),
    "sky": JobTarget(sky_job, check_sky, "sky launch {out}/*.yaml --secret HF_TOKEN"),
}


def job_target(name: str) -> JobTarget:
    """Return the target of a name, or raise UnknownName."""
    if name not in JOB_TARGETS:
        raise UnknownName("target of a fine-tune", name, JOB_TARGETS)
    return JOB_TARGETS[name]


def job_name(plan: JobPayload) -> str:
    """Return a job's name: the model's, without what names can't hold."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"tune-{Path(plan.model_source).name}".lower()).strip("-")
    return slug[:LONGEST_NAME].rstrip("-")


def chosen_spec(plan: JobPayload, data: str) -> dict[str, Any]:
    """Return the spec with the plan's choice, and the data where the job finds it."""
    variant = plan.choice.variant
    chosen: dict[str, Any] = {
        "method": str(variant.method),
        "offload": str(variant.offload),
        "checkpointing": variant.checkpointing,
        "sharding": str(variant.sharding),
        "micro_batch": variant.micro_batch,
        "tensor_parallel": variant.tp,
        "data_parallel": variant.dp,
        "data": data,
    }
    if variant.rank:
        chosen["rank"] = variant.rank
    kept = {key: value for key, value in plan.spec.items() if value is not None and key not in OF_PLANS}
    return kept | chosen


def tune_job(plan: JobPayload, target: str, command: str | None, claim: str = CLAIM) -> BatchJob:
    """Return the job of a plan: `hgpu tune`, or a `command` of the user's that trains as planned.

    Raises InputError for what `hgpu tune` doesn't do itself, and for a model, data or GPU that a machine
    elsewhere can't have.
    """
    choice, on_sky = plan.choice, target == "sky"
    data = plan.spec.get("data")
    _require_reachable(plan, data)
    folder = SKY_SPEC if on_sky else SPEC_FOLDER
    results = "hgpu-results" if on_sky else f"{DATA_FOLDER}/results"
    there = PurePosixPath(SKY_DATA if on_sky else DATA_FOLDER) / Path(data or "").name
    words = ["sh", "-c", command] if command else _tune_words(plan, folder, results)
    per_node = min(choice.gpus_per_machine, choice.variant.gpus)
    spec = yaml.safe_dump(chosen_spec(plan, str(there)), sort_keys=False)
    return BatchJob(
        command=words,
        files={SPEC: spec},
        offer=choice.offer,
        region=choice.region,
        market=choice.market,
        gpu=choice.gpu,
        gpus=per_node,
        nodes=choice.machines,
        claim=claim,
        setup=f"pip install 'hgpu[tune]=={__version__}'",
        mounts={f"~/{there}": str(data)} if on_sky and data else {},
    )


def _tune_words(plan: JobPayload, folder: str, results: str) -> list[str]:
    if why := not_tuned(plan.choice.variant, plan.model.weight_dtype):
        raise InputError(
            f"the plan isn't one that hgpu tune runs: {plan.choice.variant.name}",
            why,
            "plan with tensor_parallel: 1, offload: none and bf16 or fp32, or give what trains so: "
            "--command 'torchrun --node-rank $HGPU_NODE_RANK …'",
        )
    if plan.spec.get("data") is None:
        raise InputError(
            "the job has nothing to train on", "its spec has no `data`", "add `data`, and plan again"
        )
    return ["hgpu", "tune", f"{folder}/{SPEC}", "--results", results]


def _require_reachable(plan: JobPayload, data: str | None) -> None:
    if resolve_gpu(plan.choice.gpu).vendor != "nvidia":
        raise InputError(
            f"the plan is for {plan.choice.gpu}", "jobs are rendered for NVIDIA's GPUs", "run hgpu tune here"
        )
    model = Path(plan.model_source)
    if model.is_dir() or model.is_absolute() or plan.model_source.startswith("-"):
        raise InputError(
            f"the model is a folder of this machine: {plan.model_source}",
            "the machines of a cluster or cloud can't read it",
            "name a Hugging Face id in the spec, and plan again",
        )
    if data is not None and not Path(data).name:
        raise InputError(f"'{data}' names no data", "a file or folder is needed", "correct `data`")


def render_job(
    plan: JobPayload,
    digest: str,
    target: str,
    given: Mapping[str, Any],
    command: str | None,
    claim: str | None,
) -> list[Document]:
    """Return the documents of a plan for a target; `given` are the options of files by name.

    Raises InputError where Kubernetes has no image with hgpu to run.
    """
    found = job_target(target)
    job = tune_job(plan, target, command, claim or CLAIM)
    if target != "sky" and "image" not in given:
        raise InputError(
            "no container image to run",
            "hgpu publishes none yet",
            "give one with hgpu[tune] in it: --image REGISTRY/hgpu-tune:TAG",
        )
    return found.render(job, RenderOptions(**{"name": job_name(plan), "plan_digest": digest, **given}))
