"""The targets that a plan renders for. A new one is one file and one entry here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.core.errors import InputError, UnknownName
from hgpu.deploy.render.aibrix import aibrix_documents
from hgpu.deploy.render.aws import aws_documents
from hgpu.deploy.render.document import Document, RenderOptions
from hgpu.deploy.render.kubernetes import kubernetes_documents
from hgpu.deploy.render.lws import lws_documents
from hgpu.deploy.render.sky import sky_documents
from hgpu.deploy.render.validate import Check, check_aibrix, check_aws, check_objects, check_sky, unchecked

KUBECTL = "kubectl apply --server-side --field-manager hgpu --recursive --filename {out}"
# `--recursive` would take the profiles for objects, too.
EACH_YAML = (
    "find {out} -name '*.yaml' -exec kubectl apply --server-side --field-manager hgpu --filename {{}} \\;"
)
# Each profile goes to the key aibrix:profile_NAME_NAME-POOL of the Redis that AIBrix brings.
PROFILES = (
    "for each profile: kubectl exec --stdin --namespace aibrix-system deployment/aibrix-redis-master"
    " -- redis-cli -x SET aibrix:profile_NAME_NAME-POOL < {out}/profiles/POOL.json"
)
LOCAL = "local"
LAUNCHED = ("kubernetes", "aws")  # of those that are rendered: hgpu applies them itself, too


@dataclass(frozen=True, slots=True)
class Target:
    """How to render a plan, how to check a document of it, and the command that applies them by hand."""

    render: Callable[[PlanPayload, RenderOptions], list[Document]]
    check: Check
    by_hand: str

    def command(self, out: Path | str) -> str:
        """Return the command that applies what was written to a folder."""
        return self.by_hand.format(out=out)


RENDERED = {
    "kubernetes": Target(kubernetes_documents, check_objects, KUBECTL),
    "lws": Target(lws_documents, check_objects, KUBECTL),
    "aibrix": Target(aibrix_documents, check_aibrix, f"{EACH_YAML}; {PROFILES}"),
    "sky": Target(
        sky_documents, check_sky, "sky serve up {out}/POOL.yaml --secret HF_TOKEN --secret VLLM_API_KEY"
    ),
    "aws": Target(
        aws_documents,
        check_aws,
        "aws ec2 create-launch-template --cli-input-yaml file://{out}/POOL/launch-template.yaml",
    ),
}

# Its files need the machine beside the plan (`hgpu/deploy/render/local.py`), and go nowhere.
HERE = Target(lambda plan, options: [], unchecked, "hgpu deploy PLAN")


def rendered_target(name: str) -> Target:
    """Return the target of a name, or raise UnknownName."""
    known = RENDERED | {LOCAL: HERE}
    if name not in known:
        raise UnknownName("target of a dry run", name, known)
    return known[name]


def require_launched(name: str) -> None:
    """Raise InputError, with the way to do it by hand, for a target that hgpu only renders for."""
    if name in RENDERED and name not in LAUNCHED:
        raise InputError(
            f"hgpu doesn't launch on '{name}' itself yet",
            "it writes and checks the objects",
            f"--dry-run --out DIR, then: {RENDERED[name].command('DIR')}",
        )
