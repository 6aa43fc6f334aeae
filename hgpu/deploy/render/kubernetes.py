"""Plain Kubernetes: a Deployment for each pool, one Service and one InferencePool before all of them."""

from typing import Any

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.deploy.launch import served_name
from hgpu.deploy.render.document import Body, Document, RenderOptions, pool_slug, pools
from hgpu.deploy.render.pods import PORT, engine_pod, labels, metadata, selector, whole_engine

PICKER_PORT = 9002
MOST_GROWTH = 2  # times the planned engines, by the autoscaler
RUNNING_METRIC = "vllm_num_requests_running"
EVERY_POD: dict[str, str] = {}


def kubernetes_documents(plan: PlanPayload, options: RenderOptions) -> list[Document]:
    """Return the objects of a plan for any cluster, one file a pool and one for what they share.

    The InferencePool is for clusters with the Gateway API's inference extension, whose endpoint picker is
    installed beside it as `<name>-epp`; elsewhere the Service spreads connections over the same pods.
    """
    documents = [
        Document("service.yaml", service(options, options.name)),
        Document("inferencepool.yaml", inference_pool(options)),
    ]
    for row in pools(plan):
        name = f"{options.name}-{pool_slug(row)}"
        documents += [
            Document(
                f"{pool_slug(row)}/deployment.yaml", deployment(plan, row, options, name, served_name(plan))
            ),
            Document(f"{pool_slug(row)}/disruption.yaml", disruption_budget(row, options, name)),
        ]
        if options.autoscale:
            scaler = autoscaler(plan, row, options, name)
            documents.append(Document(f"{pool_slug(row)}/autoscaler.yaml", scaler))
    return documents


def deployment(
    plan: PlanPayload, row: AllocationRow, options: RenderOptions, name: str, model_name: str
) -> Body:
    """Return the engines of a pool, which serve `model_name`. An autoscaler is left to say how many."""
    replicas = {} if options.autoscale else {"replicas": row.engines}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, options, row),
        "spec": replicas
        | {
            "selector": {"matchLabels": selector(options, row)},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},  # make before break
            "template": {
                "metadata": {"labels": labels(options, row)},
                "spec": engine_pod(row, options, whole_engine(plan, row, model_name)),
            },
        },
    }


def service(options: RenderOptions, name: str, only: dict[str, str] = EVERY_POD) -> Body:
    """Return the address of all engines of a deployment; their pods have the labels `only`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, options),
        "spec": {
            "selector": selector(options) | only,
            "ports": [{"name": "http", "protocol": "TCP", "port": PORT, "targetPort": "http"}],
        },
    }


def inference_pool(options: RenderOptions, only: dict[str, str] = EVERY_POD) -> Body:
    """Return the pool of the Gateway API's inference extension over all engines, whatever their GPU."""
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": metadata(options.name, options),
        "spec": {
            "selector": {"matchLabels": selector(options) | only},
            "targetPorts": [{"number": PORT}],
            "endpointPickerRef": {"name": f"{options.name}-epp", "port": {"number": PICKER_PORT}},
        },
    }


def disruption_budget(row: AllocationRow, options: RenderOptions, name: str) -> Body:
    """Return that a drain of nodes takes one engine of a pool at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, options, row),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(options, row)}},
    }


def autoscaler(plan: PlanPayload, row: AllocationRow, options: RenderOptions, name: str) -> Body:
    """Return a scaler that keeps the planned requests in flight an engine; never below the plan.

    It reads vLLM's `vllm:num_requests_running`, which an adapter (as Prometheus's) must serve as a metric of
    pods.
    """
    (in_flight,) = (said.concurrency for said in plan.predicted if said.pool == row.pool)
    target: dict[str, Any] = {
        "type": "AverageValue",
        "averageValue": str(max(1, round(in_flight))),
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(name, options, row),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": row.engines,
            "maxReplicas": MOST_GROWTH * row.engines,
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": RUNNING_METRIC}, "target": target}}],
        },
    }
