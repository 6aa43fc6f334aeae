"""A plan of three pools with an engine each, and a driver that deploys it under one name."""

from dataclasses import replace
from pathlib import Path

from hgpu.artifacts.store import load
from hgpu.deploy.cluster.api import Access
from hgpu.deploy.cluster.driver import KubernetesDriver
from hgpu.deploy.driver import DeployOptions
from hgpu.deploy.render.kubernetes import kubernetes_documents

GOLDEN = Path(__file__).parent / "golden" / "render"
OPTIONS = DeployOptions(timeout_s=60)
NAME = "chat"


def small_plan(*pools, engines=1):
    """The golden plan with few engines, of all its pools or of some."""
    plan = load(GOLDEN / "plan")
    rows = [row.model_copy(update={"engines": engines}) for row in plan.payload.allocation]
    kept = [row for row in rows if not pools or row.pool in pools]
    return replace(plan, payload=plan.payload.model_copy(update={"allocation": kept}))


def driver(kubeconfig, without=(), autoscale=False, **options):
    def render(plan, given):
        made = kubernetes_documents(plan, given)
        return [document for document in made if document.body["kind"] not in without]

    return KubernetesDriver(
        Access(kubeconfig=kubeconfig),
        rendering={"name": NAME, "autoscale": autoscale},
        render=render,
        **options,
    )
