"""A live look at a deployment in a cluster."""

from collections.abc import Mapping, Sequence

from hgpu.deploy.cluster.api import DEPLOYMENT, POD, Cluster, Object
from hgpu.deploy.cluster.lease import held_by, intended
from hgpu.deploy.cluster.removal import everything, name_of
from hgpu.deploy.cluster.rollout import pool_of, trouble
from hgpu.deploy.driver import DeploymentStatus, SlotStatus
from hgpu.deploy.render.pods import PORT
from hgpu.deploy.state import Phase, Role

PLAN = "hgpu.io/plan"
COMPONENT = "app.kubernetes.io/component"


def front_url(name: str, namespace: str) -> str:
    """Return where a deployment answers inside its cluster."""
    return f"http://{name}.{namespace}.svc:{PORT}"


def status_of(cluster: Cluster, name: str, selector: str, lease: Object | None) -> DeploymentStatus:
    """Return what the cluster says of a deployment: its pods, and where it isn't what was intended."""
    deployments = cluster.find(DEPLOYMENT, selector)
    there = [name_of(kind, one) for kind, one in everything(cluster, selector)]
    slots = tuple(_slot(pod, cluster.namespace) for pod in cluster.find(POD, selector))
    plans = sorted({str(_annotations(one).get(PLAN, "")) for one in deployments} - {""})
    drift = _drift(deployments, there, intended(lease), plans)
    return DeploymentStatus(
        name=name,
        target="kubernetes",
        plan_digest=", ".join(plans),
        phase=_phase(bool(held_by(lease)), bool(drift) or not there),
        front_url=front_url(name, cluster.namespace),
        slots=slots,
        drift=drift,
        updated_at=str(((lease or {}).get("spec") or {}).get("renewTime") or ""),
    )


def _drift(
    deployments: Sequence[Object], there: Sequence[str], wanted: Sequence[str], plans: Sequence[str]
) -> tuple[str, ...]:
    found = [f"{name} is missing" for name in sorted(set(wanted) - set(there))]
    found += [f"{name} is of an earlier plan" for name in sorted(set(there) - set(wanted))]
    if len(plans) > 1:
        found.append(f"its pools are of different plans: {', '.join(plans)}")
    for pool in map(pool_of, deployments):
        if not pool.settled:
            found.append(f"{pool.name}: {pool.ready} of {pool.wanted} engines are healthy")
    return tuple(found)


def _phase(in_hand: bool, drifted: bool) -> Phase:
    if in_hand:
        return Phase.STARTING
    return Phase.DEGRADED if drifted else Phase.READY


def _slot(pod: Object, namespace: str) -> SlotStatus:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    alive, why = status.get("phase") == "Running", trouble(pod)
    return SlotStatus(
        slot=name,
        role=Role.ENGINE,
        pool=str((pod["metadata"].get("labels") or {}).get(COMPONENT, "")),
        phase=Phase.STARTING if why else Phase.READY,
        pid=None,
        url=f"http://{status['podIP']}:{PORT}" if status.get("podIP") else "",
        alive=alive,
        healthy=alive and not why,
        log=f"kubectl logs --namespace {namespace} {name}",
    )


def _annotations(one: Object) -> Mapping[str, object]:
    return one["metadata"].get("annotations") or {}
