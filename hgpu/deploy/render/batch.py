"""A job that ends, as Kubernetes and SkyPilot take it: a command on one machine or several.

Kubernetes: an Indexed Job frees its GPUs when it ends. Where one machine isn't enough, its pods find each
other through a headless Service; a LeaderWorkerSet, for clusters that gang-schedule by them, keeps its pods
until it is deleted. Each machine is told its number, how many there are, and the first one's address.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hgpu.catalog.gpus import product_labels
from hgpu.core.offer import Market
from hgpu.deploy.render.document import Body, Document, RenderOptions
from hgpu.deploy.render.pods import INSTANCE_TYPE, PRODUCT, RESOURCE, USER, literal
from hgpu.deploy.render.sky import ACCELERATORS
from hgpu.tuning.launch import LEADER, NODE_RANK, NODES, PORT

SPEC_FOLDER, DATA_FOLDER = "/spec", "/data"
SKY_SPEC, SKY_DATA = "hgpu-job", "hgpu-data"  # in the home of SkyPilot's user
TRIES = 3  # of a pod that failed; training goes on from its last checkpoint
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What runs: `command` on each of `nodes` machines of an offer, with `gpus` each.

    `files` are small texts that lie in `/spec`, and `/data` is the volume `claim`, on Kubernetes; on SkyPilot
    they lie in `hgpu-job` under the home folder, where the command runs, and the paths of this machine in
    `mounts` are copied there. `setup` prepares a machine of SkyPilot.
    """

    command: Sequence[str]
    files: Mapping[str, str]
    offer: str
    region: str
    market: str
    gpu: str
    gpus: int
    nodes: int = 1
    claim: str = ""
    setup: str = ""
    mounts: Mapping[str, str] = field(default_factory=dict)


def kubernetes_job(job: BatchJob, options: RenderOptions) -> list[Document]:
    """Return a ConfigMap of the files and an Indexed Job, with a headless Service where it spans machines."""
    documents = [_files(job, options)]
    if job.nodes > 1:
        documents.append(Document("service.yaml", _service(options)))
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(options),
        "spec": {
            "completions": job.nodes,
            "parallelism": job.nodes,
            "completionMode": "Indexed",
            "backoffLimit": TRIES * job.nodes,
            "template": {
                "metadata": {"labels": _labels(options)},
                "spec": _pod(job, options, _indexed(job, options))
                | {"restartPolicy": "Never"}
                | ({"subdomain": options.name} if job.nodes > 1 else {}),
            },
        },
    }
    return [*documents, Document("job.yaml", body)]


def lws_job(job: BatchJob, options: RenderOptions) -> list[Document]:
    """Return a ConfigMap of the files and a LeaderWorkerSet of one group.

    Its controller would start anew what has ended: pods that have succeeded wait until they are deleted.
    """
    told = f'export {NODE_RANK}="$LWS_WORKER_INDEX" {NODES}={job.nodes} {LEADER}="$LWS_LEADER_ADDRESS"'
    stays = ["sh", "-c", f'{told}; "$@" && exec sleep infinity', "sh", *job.command]
    body = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _metadata(options),
        "spec": {
            "replicas": 1,
            "leaderWorkerTemplate": {
                "size": job.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "workerTemplate": {
                    "metadata": {"labels": _labels(options)},
                    "spec": _pod(replace(job, command=stays), options, []),
                },
            },
        },
    }
    return [_files(job, options), Document("leaderworkerset.yaml", body)]


def sky_job(job: BatchJob, options: RenderOptions) -> list[Document]:
    """Return a task for `sky launch`: the offer that was priced, and the files written before it starts."""
    cloud, _, instance = job.offer.partition("/")
    written = [
        f"mkdir -p ~/{SKY_SPEC} && cat > ~/{SKY_SPEC}/{name} <<'HGPU_END'\n{text}HGPU_END"
        for name, text in sorted(job.files.items())
    ]
    ranks = [
        f'export {NODE_RANK}="$SKYPILOT_NODE_RANK" {NODES}="$SKYPILOT_NUM_NODES"',
        f'export {LEADER}="$(echo "$SKYPILOT_NODE_IPS" | head -n1)"',
    ]
    body: dict[str, Any] = {
        "name": options.name,
        "num_nodes": job.nodes,
        "resources": {
            "infra": f"{cloud}/{job.region}",
            "instance_type": instance.partition(":")[0],
            "accelerators": {ACCELERATORS.get(job.gpu, job.gpu): job.gpus},
            "use_spot": job.market == Market.SPOT,
        },
        "secrets": {"HF_TOKEN": None},  # `sky launch --secret HF_TOKEN` takes it from the caller
        **({"file_mounts": dict(job.mounts)} if job.mounts else {}),
        "setup": "\n".join([job.setup, *written]),
        "run": "\n".join(["cd ~", *(ranks if job.nodes > 1 else []), shlex.join(job.command)]),
    }
    return [Document(f"{options.name}.yaml", body)]


def _files(job: BatchJob, options: RenderOptions) -> Document:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(options),
        "data": dict(job.files),
    }
    return Document("files.yaml", body)


def _service(options: RenderOptions) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(options),
        "spec": {
            "clusterIP": "None",
            "selector": {"app.kubernetes.io/instance": options.name},
            "ports": [{"name": "rendezvous", "protocol": "TCP", "port": PORT, "targetPort": PORT}],
            "publishNotReadyAddresses": True,
        },
    }


def _indexed(job: BatchJob, options: RenderOptions) -> list[dict[str, Any]]:
    """Return what tells a pod of an Indexed Job its place; nothing where it is alone."""
    if job.nodes == 1:
        return []
    return [
        {"name": NODE_RANK, "valueFrom": {"fieldRef": {"fieldPath": INDEX}}},
        {"name": NODES, "value": str(job.nodes)},
        {"name": LEADER, "value": f"{options.name}-0.{options.name}"},
    ]


def _labels(options: RenderOptions) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "hgpu-job",
        "app.kubernetes.io/instance": options.name,
        "app.kubernetes.io/managed-by": "hgpu",
    }


def _metadata(options: RenderOptions) -> dict[str, Any]:
    return {
        "name": options.name,
        "namespace": options.namespace,
        "labels": _labels(options),
        "annotations": {"hgpu.io/plan": options.plan_digest},
    }


def _pod(job: BatchJob, options: RenderOptions, environment: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the pod: no rights, a read-only file system but for `/data`, `/tmp` and shared memory."""
    devices = {RESOURCE: str(job.gpus)}
    instance = job.offer.rpartition("/")[2].partition(":")[0]
    reference = {"name": options.secret, "key": "HF_TOKEN", "optional": True}
    homes = [{"name": name, "value": DATA_FOLDER} for name in ("HOME", "HF_HOME")]
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [_in(PRODUCT, product_labels(job.gpu))]
                },
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 100, "preference": _in(INSTANCE_TYPE, [instance])}
                ],
            }
        },
        "tolerations": [{"key": RESOURCE, "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [
            {
                "name": "job",
                "image": options.image,
                "command": [literal(word) for word in job.command],
                "env": [
                    *homes,
                    {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}},
                    *environment,
                ],
                "resources": {"limits": devices, "requests": devices},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "spec", "mountPath": SPEC_FOLDER, "readOnly": True},
                    {"name": "data", "mountPath": DATA_FOLDER},
                    {"name": "tmp", "mountPath": "/tmp"},
                    {"name": "shm", "mountPath": "/dev/shm"},
                ],
            }
        ],
        "volumes": [
            {"name": "spec", "configMap": {"name": options.name}},
            {"name": "data", "persistentVolumeClaim": {"claimName": job.claim}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _in(key: str, values: list[str]) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": "In", "values": values}]}
