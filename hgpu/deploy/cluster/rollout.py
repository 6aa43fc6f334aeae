"""Waiting until a cluster runs what it was given, and what to say where it doesn't."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hgpu.core.errors import EngineError
from hgpu.deploy.cluster.api import DEPLOYMENT, POD, WATCH_S, Cluster, Object
from hgpu.deploy.driver import Progress


@dataclass(frozen=True, slots=True)
class Pool:
    """How far a Deployment of engines is; `settled` where its newest form is all there is, and available."""

    name: str
    wanted: int
    ready: int
    settled: bool


def pool_of(deployment: Object) -> Pool:
    """Return how far a Deployment is: all its pods of the newest form, available, and no older ones."""
    spec, status = deployment["spec"], deployment.get("status") or {}
    wanted = int(spec.get("replicas", 1))
    counts = [int(status.get(key) or 0) for key in ("updatedReplicas", "replicas", "availableReplicas")]
    seen = int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation") or 0)
    ready = int(status.get("readyReplicas") or 0)
    return Pool(deployment["metadata"]["name"], wanted, ready, seen and counts == [wanted] * 3)


def await_rollout(
    cluster: Cluster,
    selector: str,
    least: Mapping[str, int],
    timeout_s: float,
    progress: Progress,
    alive: Callable[[], None],
) -> None:
    """Return when the Deployments are settled with at least so many engines.

    `alive` is called from time to time.

    Raises EngineError when `timeout_s` seconds are over, with what keeps the pods.
    """
    deadline = time.monotonic() + timeout_s
    told: set[str] = set()
    while (left_s := deadline - time.monotonic()) > 0:
        for found in cluster.changes(DEPLOYMENT, selector, min(left_s, WATCH_S)):
            pools = [pool for pool in map(pool_of, found) if pool.name in least]
            done = [pool for pool in pools if pool.settled and pool.wanted >= least[pool.name]]
            for pool in done:
                if pool.name not in told:
                    told.add(pool.name)
                    progress(f"{pool.name}: {pool.ready} of {pool.wanted} engines are healthy")
            if len(done) == len(least):
                return
            if time.monotonic() > deadline:
                break
        alive()
    pods = cluster.find(POD, selector)
    raise EngineError(
        f"not all engines are healthy after {timeout_s:g} s",
        "; ".join(sorted({why for pod in pods if (why := trouble(pod))})) or "their pods haven't started",
        "allow more time with --timeout, or see `kubectl describe pods` and their logs",
    )


def trouble(pod: Object) -> str:
    """Return why a pod isn't ready, as the cluster says it; empty where it is."""
    status = pod.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    name = pod["metadata"]["name"]
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        for kind in ("waiting", "terminated"):
            if reason := (state.get(kind) or {}).get("reason"):
                return f"{name}: {reason}"
    for condition in conditions.values():
        if condition["status"] != "True" and condition.get("reason"):
            return f"{name}: {condition['reason']}: {condition.get('message', '')}".rstrip(": ")
    return f"{name}: {status.get('phase', 'Unknown')}"
