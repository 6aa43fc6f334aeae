"""The target `kubernetes`: applies a plan's objects by the server, and waits until they run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import UnknownName
from hgpu.deploy.cluster.api import LEASE, RENDERED_KINDS, Access, Cluster, Kind, Object
from hgpu.deploy.cluster.autoscaling import least_engines, leave_count
from hgpu.deploy.cluster.lease import Lease, TakenOver, leased
from hgpu.deploy.cluster.removal import everything, name_of, prove_gone, remove
from hgpu.deploy.cluster.rollout import await_rollout
from hgpu.deploy.cluster.status import COMPONENT, front_url, status_of
from hgpu.deploy.driver import Deployed, DeploymentStatus, DeployOptions, Destroyed, Progress
from hgpu.deploy.render.document import Document, RenderOptions, pool_slug, render_options, require_dns_label
from hgpu.deploy.render.kubernetes import kubernetes_documents
from hgpu.deploy.render.pods import PORT
from hgpu.deploy.state import Phase, Role, SlotState, State

TARGET = "kubernetes"
MANAGED = {"app.kubernetes.io/managed-by": "hgpu"}
INSTANCE = "app.kubernetes.io/instance"
Render = Callable[[PlanPayload, RenderOptions], list[Document]]


@dataclass(frozen=True, slots=True)
class KubernetesDriver:
    """Deploys into one namespace of a cluster, which holds all state: objects, their labels, a Lease.

    `rendering` are the options of a dry run; `force` takes fields over that others manage.
    """

    access: Access = field(default_factory=Access)
    namespace: str = "default"
    rendering: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False
    render: Render = kubernetes_documents

    def apply(
        self, plan: Artifact[PlanPayload], root: Path, options: DeployOptions, progress: Progress
    ) -> Deployed:
        """Apply the plan's objects, wait until all engines are healthy, and prune those of an earlier plan.

        The server tries everything first, so that a refusal changes nothing. Raises HgpuError where it
        refuses, or another hgpu works on the deployment, and EngineError where engines don't come up.
        """
        rendered = render_options(plan.payload, plan.short, {**self.rendering, "namespace": self.namespace})
        documents = [document.body for document in self.render(plan.payload, rendered)]
        cluster, name = self._cluster(), rendered.name
        bodies = _known(cluster, [body for body in documents if not isinstance(body, str)], progress)
        for body in bodies:
            cluster.apply(body, self.force, dry_run=True)
        progress("tried by the server")
        with leased(cluster, name, _labels(name)) as lease:
            progress("locked")
            before = everything(cluster, _selector(name))
            try:
                changed = self._converge(cluster, lease, bodies, name, options, progress)
            except TakenOver:
                raise
            except BaseException:
                if not before and not options.keep_on_failure:
                    progress("taking down what was applied")
                    _take_down(cluster, name, lease)
                raise
        progress("ready")
        return Deployed(_state(name, self.namespace, plan, bodies), None, changed)

    def status(
        self, root: Path, name: str | None = None, include_destroyed: bool = False
    ) -> list[DeploymentStatus]:
        """Look at the deployments of the namespace, or at one of them. Nothing is changed."""
        names = self.names(root)
        if name is not None and name not in names:
            raise UnknownName("deployment", name, names)
        cluster = self._cluster()
        return [
            status_of(cluster, one, _selector(one), cluster.get(LEASE, one))
            for one in ([name] if name else names)
        ]

    def destroy(self, root: Path, name: str) -> Destroyed:
        """Delete every object with the deployment's labels, its Lease last, and prove that none is left."""
        require_dns_label("name", name)
        if name not in self.names(root):
            raise UnknownName("deployment", name, self.names(root))
        cluster = self._cluster()
        with leased(cluster, name, _labels(name)) as lease:
            deleted = _take_down(cluster, name, lease)
        return Destroyed(name, deleted, "objects")

    def names(self, root: Path) -> list[str]:
        """Return the deployments that have an object, or a Lease, in the namespace."""
        cluster, selector = self._cluster(), _text(MANAGED)
        found = [one for kind in (*RENDERED_KINDS, LEASE) for one in cluster.find(kind, selector)]
        return sorted({one["metadata"]["labels"][INSTANCE] for one in found if INSTANCE in _labels_of(one)})

    def _cluster(self) -> Cluster:
        require_dns_label("namespace", self.namespace)
        return Cluster(self.access, self.namespace)

    def _converge(
        self,
        cluster: Cluster,
        lease: Lease,
        bodies: Sequence[Mapping[str, Any]],
        name: str,
        options: DeployOptions,
        progress: Progress,
    ) -> bool:
        """Write the intent, apply, wait, prune; tell whether anything changed."""
        wanted = [(_kind(body), str(body["metadata"]["name"])) for body in bodies]
        lease.intend([name_of(*one) for one in wanted])
        progress("intended")
        changed = False
        for body, (kind, one) in zip(bodies, wanted, strict=True):
            there = cluster.get(kind, one)
            leave_count(cluster, body, there)
            changed |= _version(cluster.apply(body, self.force)) != _version(there)
            progress(f"{name_of(kind, one)}: applied")
        selector = _selector(name)
        await_rollout(cluster, selector, least_engines(bodies), options.timeout_s, progress, lease.renew)
        surplus = [found for found in everything(cluster, selector) if found not in wanted]
        remove(cluster, surplus)  # only now: the new engines are healthy
        prove_gone(cluster, selector, name, lease.renew, kept=wanted)
        for found in surplus:
            progress(f"{name_of(*found)}: of an earlier plan, deleted")
        return changed or bool(surplus)


def _take_down(cluster: Cluster, name: str, lease: Lease) -> int:
    objects = everything(cluster, _selector(name))
    remove(cluster, objects)
    prove_gone(cluster, _selector(name), name, lease.renew)
    cluster.delete(LEASE, name, "Background")  # at once: it owns nothing
    return len(objects)


def _known(
    cluster: Cluster, bodies: Sequence[Mapping[str, Any]], progress: Progress
) -> list[Mapping[str, Any]]:
    """Return the objects without those that the deployment does without where the cluster lacks them."""
    lacking = [kind for kind in RENDERED_KINDS if not kind.needed and not cluster.knows(kind)]
    for kind in lacking:
        progress(f"the cluster has no {kind.name}: left out, the Service spreads connections")
    names = {(kind.api_version, kind.name) for kind in lacking}
    return [body for body in bodies if (body["apiVersion"], body["kind"]) not in names]


def _state(
    name: str, namespace: str, plan: Artifact[PlanPayload], bodies: Sequence[Mapping[str, Any]]
) -> State:
    commands = {
        body["metadata"]["labels"][COMPONENT]: body["spec"]["template"]["spec"]["containers"][0]["command"]
        for body in bodies
        if body["kind"] == "Deployment"
    }
    slots = [
        SlotState(
            slot=f"{row.pool}-{number}",
            role=Role.ENGINE,
            pool=row.pool,
            port=PORT,
            command=commands[pool_slug(row)],
            phase=Phase.READY,
        )
        for row in sorted(plan.payload.allocation, key=lambda row: row.pool)
        for number in range(row.engines)
    ]
    return State(
        name=name,
        plan_digest=plan.digest,
        target=TARGET,
        phase=Phase.READY,
        slots=slots,
        front_url=front_url(name, namespace),
    )


def _kind(body: Mapping[str, Any]) -> Kind:
    return next(k for k in RENDERED_KINDS if (k.api_version, k.name) == (body["apiVersion"], body["kind"]))


def _version(one: Object | None) -> str:
    return str(one["metadata"]["resourceVersion"]) if one else ""


def _labels(name: str) -> dict[str, str]:
    return MANAGED | {INSTANCE: name}


def _labels_of(one: Object) -> Mapping[str, str]:
    return one["metadata"].get("labels") or {}


def _selector(name: str) -> str:
    return _text(_labels(name))


def _text(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())
