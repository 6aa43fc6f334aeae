"""SkyPilot: one SkyServe service for each pool, as `any_of` wouldn't keep the mix that was solved for."""

import shlex

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.core.errors import InputError
from hgpu.core.offer import Market
from hgpu.deploy.launch import served_name
from hgpu.deploy.render.document import Body, Document, RenderOptions, pool_slug, pools, refuse_autoscaling
from hgpu.deploy.render.pods import PORT, SECRETS, STARTUP_CHECKS, engine_words

# SkyPilot's names of GPU types, where they aren't the catalog's.
ACCELERATORS = {
    "A100-40GB": "A100",
    "H100-SXM": "H100",
    "H100-PCIe": "H100",
    "H100-NVL": "H100",
    "RTX-PRO-6000": "RTXPRO6000",
}
VLLM = "vllm==0.26.0"


def sky_documents(plan: PlanPayload, options: RenderOptions) -> list[Document]:
    """Return a file for `sky serve up` a pool."""
    refuse_autoscaling(options, "sky")
    return [
        Document(f"{options.name}-{pool_slug(row)}.yaml", task(plan, row, options)) for row in pools(plan)
    ]


def task(plan: PlanPayload, row: AllocationRow, options: RenderOptions) -> Body:
    """Return a pool as a service: the offer that was priced, as many replicas as there are engines.

    A replica is a machine, so an offer that holds several engines can't be said: it would rent one machine
    for each.
    """
    if row.gpus_per_machine != row.tp:
        raise InputError(
            f"pool '{row.pool}' has {row.gpus_per_machine // row.tp} engines on a machine of {row.offer}",
            "a replica of SkyServe is a whole machine with one engine",
            f"plan with tensor_parallel [{row.gpus_per_machine}], or without this offer",
        )
    cloud, _, instance = row.offer.partition("/")
    return {
        "name": f"{options.name}-{pool_slug(row)}",
        "service": {
            "readiness_probe": {"path": "/health", "initial_delay_seconds": STARTUP_CHECKS * 10},
            "replicas": row.engines,
        },
        "resources": {
            "infra": f"{cloud}/{row.region}",
            "instance_type": instance,
            "accelerators": {ACCELERATORS.get(row.gpu, row.gpu): row.tp},
            "use_spot": row.market == Market.SPOT,
            "ports": [PORT],
        },
        "secrets": dict.fromkeys(SECRETS),  # `sky serve up --secret HF_TOKEN` takes them from the caller
        "setup": f"pip install {VLLM}",
        "run": shlex.join(engine_words(plan, row.point, served_name(plan))),
    }
