"""Who says how many engines a Deployment has: the plan, or an autoscaler between its bounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from hgpu.deploy.cluster.api import Cluster, Object

HANDOVER = "hgpu-autoscaling"


def leave_count(cluster: Cluster, body: Mapping[str, Any], there: Object | None) -> None:
    """Keep the count of a running Deployment that is about to be left to an autoscaler.

    A field that its only manager stops applying falls back to its default: all engines but one would go.
    So another manager takes it over first, with the value that it has.
    """
    if body["kind"] != "Deployment" or "replicas" in body["spec"] or there is None:
        return
    metadata = {key: body["metadata"][key] for key in ("name", "namespace")}
    fields = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata}
    cluster.apply(fields | {"spec": {"replicas": there["spec"]["replicas"]}}, force=False, manager=HANDOVER)


def least_engines(bodies: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the engines to wait for, by Deployment: the planned count, or its autoscaler's lower bound."""
    counts = {one["metadata"]["name"]: one["spec"].get("replicas", 1) for one in _of(bodies, "Deployment")}
    for one in _of(bodies, "HorizontalPodAutoscaler"):
        counts[one["spec"]["scaleTargetRef"]["name"]] = one["spec"]["minReplicas"]
    return counts


def _of(bodies: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [body for body in bodies if body["kind"] == kind]
