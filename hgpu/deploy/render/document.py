"""What a renderer takes beside the plan, and what it makes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import Infeasible, InputError
from hgpu.deploy.modes import require_mixed

Body = Mapping[str, Any]
IMAGE = "vllm/vllm-openai:v0.26.0"  # the vLLM that hgpu is pinned to
LONGEST_LABEL = 63
LONGEST_NAME = 40  # of a deployment; pools add to it, and Kubernetes takes 63 characters
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """`secret` is the *name* of the target's secret with HF_TOKEN and VLLM_API_KEY, never one of them."""

    name: str
    plan_digest: str
    namespace: str = "default"
    image: str = IMAGE
    secret: str = "hgpu-secrets"
    autoscale: bool = False

    def __post_init__(self) -> None:
        for what in ("name", "namespace", "secret"):
            require_dns_label(what, getattr(self, what))
        require_image(self.image)


@dataclass(frozen=True, slots=True)
class Document:
    """One file to write: an object as YAML, or a text as it is."""

    path: str
    body: Body | str


def require_dns_label(what: str, name: str) -> None:
    """Raise InputError unless Kubernetes takes the name: nothing else may reach a manifest or a shell."""
    if len(name) > LONGEST_NAME or not DNS_LABEL.fullmatch(name):
        raise InputError(
            f"'{name}' can't be the {what} of a deployment",
            f"it must be at most {LONGEST_NAME} of a-z, 0-9 and '-', from a letter to a letter or digit",
            f"give another one with --{what}",
        )


def require_image(image: str) -> None:
    """Raise InputError unless it can be the name of a container image."""
    if not re.fullmatch(r"[\w][\w.:/@-]*", image):
        raise InputError(f"no image has the name '{image}'", "it has other characters", "see --image")


def render_options(plan: PlanPayload, plan_digest: str, given: Mapping[str, Any]) -> RenderOptions:
    """Return the options that a user gave, with a name from the plan where there is none."""
    return RenderOptions(**{"name": default_name(plan), "plan_digest": plan_digest, **given})


def refuse_passed_over(names: Iterable[str], of: str) -> None:
    """Raise InputError for options that a dry run would pass over."""
    if names := list(names):
        words = ", ".join(f"--{name.removesuffix('_s').replace('_', '-')}" for name in names)
        raise InputError(f"{words}: {of}", "this dry run would pass it over", "drop it")


def refuse_rendering(names: Sequence[str]) -> None:
    """Raise InputError for options of a dry run where something is launched."""
    if names:
        words = ", ".join(f"--{name}" for name in names)
        raise InputError(
            f"{words}: of a dry run", "nothing is written for a launch", "add --dry-run, or drop it"
        )


def refuse_autoscaling(options: RenderOptions, target: str) -> None:
    """Raise InputError where an autoscaler is asked of a target that has none here."""
    if options.autoscale:
        raise InputError(
            f"no autoscaler is rendered for `{target}`",
            "its pools keep the planned count",
            "drop --autoscale",
        )


def default_name(plan: PlanPayload) -> str:
    """Return a deployment's name: the service's, without what names can't hold."""
    slug = re.sub(r"[^a-z0-9]+", "-", plan.service.lower()).strip("-")
    slug = slug if slug[:1].isalpha() else f"s-{slug}".strip("-")
    return slug[:LONGEST_NAME].rstrip("-")


def pool_slug(row: AllocationRow) -> str:
    """Return a pool's name as a part of other names."""
    return re.sub(r"[^a-z0-9]+", "-", row.pool.lower()).strip("-")


def pools(plan: PlanPayload) -> list[AllocationRow]:
    """Return the pools by name, or say why the plan can't leave this machine."""
    if not plan.allocation:
        raise Infeasible("the plan has no engines", "its allocation is empty", "plan for a rate above zero")
    for row in plan.allocation:
        if resolve_gpu(row.gpu).vendor != "nvidia":
            raise InputError(
                f"pool '{row.pool}' runs on {row.gpu}",
                f"the image {IMAGE} has engines for NVIDIA's GPUs only",
                "plan for other GPU types, or deploy to `local`",
            )
        require_mixed(row)
    if Path(plan.model_source).is_dir() or Path(plan.model_source).is_absolute():
        raise InputError(
            f"the model is a folder of this machine: {plan.model_source}",
            "the machines of a cluster or cloud can't read it",
            "name a Hugging Face id in the spec, and plan again",
        )
    if plan.model_source.startswith("-"):
        raise InputError(
            f"no model has the name '{plan.model_source}'",
            "an engine would take it for an option",
            "name a Hugging Face id in the spec, and plan again",
        )
    _require_apart(plan.allocation)
    return sorted(plan.allocation, key=lambda row: row.pool)


def _require_apart(rows: Sequence[AllocationRow]) -> None:
    """Pools become folders, labels and parts of names: each needs one that no other has."""
    slugs = [pool_slug(row) for row in rows]
    for row, slug in zip(rows, slugs, strict=True):
        if not slug or len(slug) > LONGEST_LABEL or slugs.count(slug) > 1:
            raise InputError(
                f"pool '{row.pool}' can't be told from others by its name",
                f"as '{slug}' it is empty, another pool's, or longer than {LONGEST_LABEL}",
                "plan again: `hgpu plan` names each pool",
            )
