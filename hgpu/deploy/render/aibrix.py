"""AIBrix (arXiv 2504.03648): Deployments that its gateway finds, scaled by what its GPU optimizer says."""

from typing import Any

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.deploy.render.document import Body, Document, RenderOptions, pool_slug, pools
from hgpu.deploy.render.kubernetes import MOST_GROWTH, deployment, disruption_budget, service
from hgpu.deploy.render.pods import PORT, metadata

MODEL, MODEL_PORT = "model.aibrix.ai/name", "model.aibrix.ai/port"
OPTIMIZER = "aibrix-gpu-optimizer.aibrix-system.svc.cluster.local:8080"
REPLICAS_METRIC = "vllm:deployment_replicas"  # in hundredths of a replica, hence a target of 100


def aibrix_documents(plan: PlanPayload, options: RenderOptions) -> list[Document]:
    """Return the objects of a plan for a cluster with AIBrix.

    Its gateway routes by the label `model.aibrix.ai/name`, which must be the name that engines serve and
    that of the Service: the deployment's name, as a model's has characters that names of Services can't.
    """
    documents = [Document("service.yaml", _labelled(service(options, options.name), options))]
    for row in pools(plan):
        name = f"{options.name}-{pool_slug(row)}"
        documents += [
            Document(f"{pool_slug(row)}/deployment.yaml", _deployment(plan, row, options, name)),
            Document(f"{pool_slug(row)}/disruption.yaml", disruption_budget(row, options, name)),
        ]
        if options.autoscale:
            documents.append(
                Document(f"{pool_slug(row)}/autoscaler.yaml", pod_autoscaler(row, options, name))
            )
    return documents


def pod_autoscaler(row: AllocationRow, options: RenderOptions, name: str) -> Body:
    """Return a scaler that follows the optimizer's count, between one engine and a cap."""
    source = {
        "metricSourceType": "domain",
        "protocolType": "http",
        "endpoint": OPTIMIZER,
        "path": f"/metrics/{options.namespace}/{name}",
        "targetMetric": REPLICAS_METRIC,
        "targetValue": "100",
    }
    return {
        "apiVersion": "autoscaling.aibrix.ai/v1alpha1",
        "kind": "PodAutoscaler",
        "metadata": metadata(name, options, row),
        "spec": {
            "scalingStrategy": "KPA",
            "minReplicas": 1,
            "maxReplicas": MOST_GROWTH * row.engines,
            "metricsSources": [source],
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        },
    }


def _deployment(plan: PlanPayload, row: AllocationRow, options: RenderOptions, name: str) -> Body:
    made = deployment(plan, row, options, name, options.name)
    template = _labelled(made["spec"]["template"], options)
    return _labelled(made, options) | {"spec": made["spec"] | {"template": template}}


def _labelled(body: Body, options: RenderOptions) -> dict[str, Any]:
    more = {MODEL: options.name, MODEL_PORT: str(PORT)}
    return dict(body) | {"metadata": body["metadata"] | {"labels": body["metadata"]["labels"] | more}}
