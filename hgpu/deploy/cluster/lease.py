"""One hgpu at a time works on a deployment of a cluster: whoever holds its Lease.

The Lease also names what the deployment should consist of, so that `status` sees what a crash left out,
and it is the last object that `destroy` deletes. A holder that dies is taken over at once on its own
machine, where its process is seen to be gone, and elsewhere when the Lease has run out.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from hgpu.core.errors import HgpuError
from hgpu.deploy.cluster.api import LEASE, Cluster, Object, Taken
from hgpu.runtime.processes import is_running

DURATION_S = 60
OBJECTS = "hgpu.io/objects"


def _now() -> datetime:
    return datetime.now(UTC)


class TakenOver(HgpuError):
    """The Lease has another holder by now: whatever is there isn't ours to change any more."""


@dataclass(slots=True)
class Lease:
    """A Lease that is held; `object` is it as the cluster has it."""

    cluster: Cluster
    object: Object
    clock: Callable[[], datetime] = field(default=_now)

    def intend(self, objects: list[str]) -> None:
        """Write down what the deployment should consist of."""
        self._update({OBJECTS: json.dumps(objects)}, holder())

    def renew(self) -> None:
        """Say that work goes on, where half of the time is over."""
        if _left(self.object, self.clock()) < timedelta(seconds=DURATION_S / 2):
            self._update({}, holder())

    def release(self) -> None:
        """Let go; what was intended stays."""
        self._update({}, "")

    def _update(self, annotations: Mapping[str, str], holder_identity: str) -> None:
        metadata = self.object["metadata"]
        kept = {**(metadata.get("annotations") or {}), **annotations}
        spec = _spec(holder_identity, self.clock())
        changed = self.object | {"metadata": metadata | {"annotations": kept}, "spec": spec}
        try:
            self.object = self.cluster.replace(changed)
        except Taken as error:
            raise TakenOver(
                f"another hgpu took deployment '{metadata['name']}' over",
                "its Lease was changed by somebody else",
                "see `hgpu status --target kubernetes`, then try again",
            ) from error


@contextmanager
def leased(
    cluster: Cluster, name: str, labels: Mapping[str, str], clock: Callable[[], datetime] = _now
) -> Iterator[Lease]:
    """Hold the Lease of a deployment. Raises HgpuError where another hgpu holds it."""
    lease = Lease(cluster, _taken(cluster, name, labels, clock()), clock)
    try:
        yield lease
    finally:
        with suppress(HgpuError):  # gone with the deployment, or taken over: not ours any more
            if cluster.get(LEASE, name):
                lease.release()


def intended(lease: Object | None) -> list[str]:
    """Return what a deployment should consist of, as `Kind/name`."""
    annotations = ((lease or {}).get("metadata") or {}).get("annotations") or {}
    return [str(one) for one in json.loads(annotations.get(OBJECTS, "[]"))]


def held_by(lease: Object | None, now: datetime | None = None) -> str:
    """Return who works on the deployment now, empty where nobody does."""
    identity = str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
    if not identity or lease is None or _is_dead(identity) or _left(lease, now or _now()) <= timedelta(0):
        return ""
    return identity


def holder() -> str:
    """Return this process's name: host, pid and when it was created."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def _taken(cluster: Cluster, name: str, labels: Mapping[str, str], now: datetime) -> Object:
    there = cluster.get(LEASE, name)
    if there and (other := held_by(there, now)):
        raise _busy(name, other)
    metadata = {"name": name, "namespace": cluster.namespace, "labels": dict(labels)}
    fresh = {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": metadata}
    try:
        if there:
            return cluster.replace(there | {"spec": _spec(holder(), now)})
        return cluster.create(fresh | {"spec": _spec(holder(), now)})
    except Taken as error:
        raise _busy(name, held_by(cluster.get(LEASE, name)) or "unknown") from error


def _busy(name: str, other: str) -> HgpuError:
    return HgpuError(
        f"another hgpu is working on it: {other}",
        f"it holds the Lease of deployment '{name}' (host/pid/start)",
        f"wait until it is done; {DURATION_S} s after its last sign of life it is taken for dead",
    )


def _spec(holder_identity: str, now: datetime) -> dict[str, Any]:
    moment = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"holderIdentity": holder_identity, "leaseDurationSeconds": DURATION_S, "renewTime": moment}


def _left(lease: Object, now: datetime) -> timedelta:
    spec = lease["spec"]
    renewed = datetime.fromisoformat(str(spec["renewTime"]).replace("Z", "+00:00"))
    return renewed + timedelta(seconds=spec.get("leaseDurationSeconds") or DURATION_S) - now


def _is_dead(identity: str) -> bool:
    host, _, rest = identity.partition("/")
    pid, _, created = rest.partition("/")
    if host != socket.gethostname():
        return False
    with suppress(ValueError):
        return not is_running(int(pid), float(created))
    return False
