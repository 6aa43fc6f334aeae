"""The pod of one engine, as Deployments, AIBrix and LeaderWorkerSets hold it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.catalog.gpus import product_labels, resolve_gpu
from hgpu.core.operating_point import OperatingPoint
from hgpu.deploy.render.document import RenderOptions, pool_slug
from hgpu.profilers.vllm_args import SERVER_MODULE, command_line

PORT = 8000
SECRETS = ("HF_TOKEN", "VLLM_API_KEY")
USER = 1000
CACHE = "/cache"
STARTUP_CHECKS = 180  # of 10 s: half an hour to fetch and load the weights
DRAIN_S = 120  # for requests in flight
RESOURCE = "nvidia.com/gpu"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
PRODUCT = "nvidia.com/gpu.product"


@dataclass(frozen=True, slots=True)
class Start:
    """How a pod's container starts; one that `serves` answers HTTP and is asked for its health."""

    command: Sequence[str]
    gpus: int
    serves: bool = True


def labels(options: RenderOptions, row: AllocationRow | None = None) -> dict[str, str]:
    """Return the labels that tell a deployment's objects, or one pool's, from all others."""
    common = {
        "app.kubernetes.io/name": "vllm",
        "app.kubernetes.io/instance": options.name,
        "app.kubernetes.io/managed-by": "hgpu",
    }
    return common if row is None else common | {"app.kubernetes.io/component": pool_slug(row)}


def selector(options: RenderOptions, row: AllocationRow | None = None) -> dict[str, str]:
    """Return the labels to select pods by: all engines of a deployment, or of one pool."""
    return {k: v for k, v in labels(options, row).items() if not k.endswith(("/name", "/managed-by"))}


def metadata(name: str, options: RenderOptions, row: AllocationRow | None = None) -> dict[str, Any]:
    """Return an object's metadata; the plan that it is from is an annotation, as it changes."""
    return {
        "name": name,
        "namespace": options.namespace,
        "labels": labels(options, row),
        "annotations": {"hgpu.io/plan": options.plan_digest},
    }


def literal(word: str) -> str:
    """Return a word that a kubelet passes on as it is: it would put variables in place of `$(NAME)`."""
    return word.replace("$", "$$")


def whole_engine(plan: PlanPayload, row: AllocationRow, served_name: str) -> Start:
    """Return how an engine starts that has all its GPUs in one pod."""
    return Start([literal(word) for word in engine_words(plan, row.point, served_name)], row.tp)


def engine_pod(row: AllocationRow, options: RenderOptions, start: Start) -> dict[str, Any]:
    """Return the pod of one engine, or of a part of it: what runs, where, and when it counts as healthy.

    It runs as a user without rights, its file system is read-only but for the cache, and secrets come
    from the cluster's secret by reference.
    """
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": DRAIN_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": _affinity(row),
        "tolerations": [{"key": RESOURCE, "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [_container(options, start)],
        "volumes": [
            {"name": "cache", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # ranks of tensor parallelism talk through it
        ],
    }


def engine_words(plan: PlanPayload, point: OperatingPoint, served_name: str) -> list[str]:
    """Return the words that start an engine, which answers on all addresses of its host."""
    words = ["python3", "-m", SERVER_MODULE]
    words += command_line(plan.model_source, point, resolve_gpu(point.gpu))
    return words + serving_words(served_name)


def serving_words(served_name: str) -> list[str]:
    """Return the words that say under which name and where an engine serves."""
    words = ["--served-model-name", served_name, "--host", "0.0.0.0", "--port", str(PORT)]
    return [*words, "--disable-access-log-for-endpoints", "/health,/metrics"]


def _container(options: RenderOptions, start: Start) -> dict[str, Any]:
    devices = {RESOURCE: str(start.gpus)}
    return {
        "name": "vllm",
        "image": options.image,
        "command": list(start.command),
        "env": [
            *({"name": name, "value": value} for name, value in _environment().items()),
            *(_secret(options.secret, name) for name in SECRETS),
        ],
        "resources": {"limits": devices, "requests": devices},
        **(_served() if start.serves else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "cache", "mountPath": CACHE},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }


def _served() -> dict[str, Any]:
    health = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 10}
    return {
        "ports": [{"name": "http", "protocol": "TCP", "containerPort": PORT}],
        "startupProbe": health | {"failureThreshold": STARTUP_CHECKS},
        "readinessProbe": health | {"failureThreshold": 3},
        "livenessProbe": health | {"failureThreshold": 6, "timeoutSeconds": 5},
    }


def _environment() -> dict[str, str]:
    homes = dict.fromkeys(("HOME", "HF_HOME", "VLLM_CACHE_ROOT", "XDG_CACHE_HOME"), CACHE)
    return homes | {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def _secret(secret: str, name: str) -> dict[str, Any]:
    reference = {"name": secret, "key": name, "optional": True}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _affinity(row: AllocationRow) -> dict[str, Any]:
    """Only the planned GPU type will do; of its machines, the one that was priced is preferred."""
    instance = row.offer.rpartition("/")[2]
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [_in(PRODUCT, product_labels(row.gpu))]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "preference": _in(INSTANCE_TYPE, [instance])}
            ],
        }
    }


def _in(key: str, values: list[str]) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": "In", "values": values}]}
