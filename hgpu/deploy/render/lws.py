"""LeaderWorkerSets: engines whose GPUs are in several machines, as groups of pods that live and die together.

vLLM joins its nodes by itself, without Ray: every pod gets the number of nodes, its own number and the
leader's address; the leader serves, the others compute (`--headless`). The number and the address come
from the variables that the controller of LeaderWorkerSets adds to each container.
"""

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import InputError
from hgpu.deploy.launch import served_name
from hgpu.deploy.render.document import (
    LONGEST_LABEL,
    Body,
    Document,
    RenderOptions,
    pool_slug,
    pools,
    refuse_autoscaling,
)
from hgpu.deploy.render.kubernetes import disruption_budget, inference_pool, service
from hgpu.deploy.render.pods import Start, engine_pod, labels, literal, metadata, serving_words, whole_engine
from hgpu.profilers.vllm_args import engine_arguments, flags

LONGEST_SET = 53  # its pods add two numbers
LEADER = {"hgpu.io/role": "leader"}
JOIN = ["--node-rank", "$(LWS_WORKER_INDEX)", "--master-addr", "$(LWS_LEADER_ADDRESS)"]


def lws_documents(plan: PlanPayload, options: RenderOptions) -> list[Document]:
    """Return the objects of a plan for a cluster with LeaderWorkerSets; only leaders answer requests."""
    refuse_autoscaling(options, "lws")
    documents = [
        Document("service.yaml", service(options, options.name, LEADER)),
        Document("inferencepool.yaml", inference_pool(options, LEADER)),
    ]
    for row in pools(plan):
        name = f"{options.name}-{pool_slug(row)}"
        if len(name) > LONGEST_SET:
            raise InputError(
                f"'{name}' is too long for a LeaderWorkerSet",
                f"its pods' names are longer, and end at {LONGEST_LABEL} characters",
                "give a shorter --name",
            )
        documents += [
            Document(f"{pool_slug(row)}/leaderworkerset.yaml", leader_worker_set(plan, row, options, name)),
            Document(f"{pool_slug(row)}/disruption.yaml", disruption_budget(row, options, name)),
        ]
    return documents


def leader_worker_set(plan: PlanPayload, row: AllocationRow, options: RenderOptions, name: str) -> Body:
    """Return a pool: as many groups as engines, of as many pods as an engine has machines."""
    size = group_size(row)
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(name, options, row),
        "spec": {
            "replicas": row.engines,
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 1, "maxUnavailable": 0},  # make before break
            },
            "startupPolicy": "LeaderCreated",  # a leader isn't ready before its workers have joined
            "leaderWorkerTemplate": {
                "size": size,
                "restartPolicy": "RecreateGroupOnPodRestart",  # a rank that is gone can't be joined again
                **_pods(plan, row, options, size),
            },
        },
    }


def _pods(plan: PlanPayload, row: AllocationRow, options: RenderOptions, size: int) -> dict[str, object]:
    """A group of one is its leader, whose pod is the template of all."""
    if size == 1:
        alone = whole_engine(plan, row, served_name(plan))
        return {"workerTemplate": _template(row, options, alone, LEADER)}
    words = _node_words(plan, row, size)
    leader = Start(words, row.tp // size)
    worker = Start([*words, "--headless"], row.tp // size, serves=False)
    return {
        "leaderTemplate": _template(row, options, leader, LEADER),
        "workerTemplate": _template(row, options, worker, {}),
    }


def group_size(row: AllocationRow) -> int:
    """Return how many machines an engine is spread over, with as many of its GPUs in each."""
    size = -(-row.tp // row.gpus_per_machine)
    if row.tp % size:
        raise InputError(
            f"{row.tp} GPUs can't be spread evenly over {size} machines of {row.offer}",
            "vLLM wants as many ranks on every node",
            "plan with another tensor parallel degree",
        )
    return size


def _node_words(plan: PlanPayload, row: AllocationRow, size: int) -> list[str]:
    """`vllm serve` takes the model without a flag; its older module knows no `--headless`."""
    arguments = engine_arguments(plan.model_source, row.point, resolve_gpu(row.gpu))
    model = str(arguments.pop("model"))
    words = ["vllm", "serve", model, *flags(arguments), *serving_words(served_name(plan))]
    return [*map(literal, words), "--nnodes", str(size), *JOIN]


def _template(
    row: AllocationRow, options: RenderOptions, start: Start, role: dict[str, str]
) -> dict[str, object]:
    return {
        "metadata": {"labels": labels(options, row) | role},
        "spec": engine_pod(row, options, start),
    }
