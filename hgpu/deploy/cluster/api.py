"""A cluster's API, as far as hgpu speaks to it: one namespace, the kinds that it renders, by label."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hgpu.core.errors import HgpuError, InputError

MANAGER = "hgpu"
REQUEST_TIMEOUT_S = 30.0
WATCH_S = 20.0  # of one watch; then the Lease is renewed
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects; one that isn't `needed` is left out where a cluster lacks it."""

    api_version: str
    name: str
    needed: bool = True


DEPLOYMENT, POD = Kind("apps/v1", "Deployment"), Kind("v1", "Pod")
LEASE = Kind("coordination.k8s.io/v1", "Lease")
RENDERED_KINDS = (
    Kind("v1", "Service"),
    Kind("inference.networking.k8s.io/v1", "InferencePool", needed=False),
    DEPLOYMENT,
    Kind("policy/v1", "PodDisruptionBudget"),
    Kind("autoscaling/v2", "HorizontalPodAutoscaler"),
)


@dataclass(frozen=True)
class Access:
    """Which cluster: a context of a kubeconfig, by default the current one of the usual file."""

    context: str | None = None
    kubeconfig: Path | None = None


@dataclass(frozen=True)
class Cluster:
    """One namespace of a cluster. Every refusal becomes an HgpuError with the API's own words."""

    access: Access
    namespace: str

    @cached_property
    def _dynamic(self) -> Any:
        try:
            from kubernetes import config, dynamic
        except ImportError as error:
            raise InputError(
                "the client of Kubernetes isn't installed",
                "the target `kubernetes` speaks through it",
                "pip install 'hgpu[k8s]'",
            ) from error
        try:
            client = config.new_client_from_config(
                config_file=str(self.access.kubeconfig) if self.access.kubeconfig else None,
                context=self.access.context,
            )
        except config.ConfigException as error:
            raise InputError(
                "no cluster to deploy to", str(error), "see --kubeconfig and --context"
            ) from error
        client.configuration.retries = False
        # The client's own cache of what a cluster knows is a file that anybody may have put there.
        with tempfile.TemporaryDirectory() as folder, _asking("look at the cluster"):
            return dynamic.DynamicClient(client, cache_file=f"{folder}/discovery.json")

    def knows(self, kind: Kind) -> bool:
        """Tell whether the cluster has the kind."""
        return self._resource(kind) is not None

    def find(self, kind: Kind, selector: str) -> list[Object]:
        """Return the objects with the labels; none where the cluster lacks the kind."""
        return self._list(kind, selector)[0]

    def get(self, kind: Kind, name: str) -> Object | None:
        """Return an object, None where there is none."""
        from kubernetes.dynamic.exceptions import NotFoundError

        with _asking(f"read {kind.name} {name}"), suppress(NotFoundError):
            return self._read(self._needed(kind).get(name=name, **self._where))
        return None

    def apply(
        self, body: Mapping[str, Any], force: bool, dry_run: bool = False, manager: str = MANAGER
    ) -> Object:
        """Apply an object, or some of its fields, by the server; `dry_run` lets the server try it only.

        Raises HgpuError with the managers' names where they own a field that it would change.
        """
        kind = Kind(body["apiVersion"], body["kind"])
        options = {"dry_run": "All"} if dry_run else {}
        with _asking(f"apply {kind.name} {body['metadata']['name']}"):
            answer = self._needed(kind).server_side_apply(
                body=dict(body), field_manager=manager, force_conflicts=force, **options, **self._where
            )
        return self._read(answer)

    def create(self, body: Object) -> Object:
        """Create an object; raises Taken where there is one of its name."""
        return self._put("create", body)

    def replace(self, body: Object) -> Object:
        """Replace an object by one with its resource version; raises Taken where it has changed since."""
        return self._put("replace", body)

    def delete(self, kind: Kind, name: str, propagation: str = "Foreground") -> None:
        """Delete an object, by default after what it owns; one that is gone already is as well."""
        from kubernetes.dynamic.exceptions import NotFoundError

        body = {"propagationPolicy": propagation}
        with _asking(f"delete {kind.name} {name}"), suppress(NotFoundError):
            self._needed(kind).delete(name=name, body=body, **self._where)

    def changes(self, kind: Kind, selector: str, timeout_s: float) -> Iterator[list[Object]]:
        """Yield the objects with the labels, and again whenever one changes, for `timeout_s` seconds."""
        found, version = self._list(kind, selector)
        by_name = {one["metadata"]["name"]: one for one in found}
        yield list(by_name.values())
        resource = self._resource(kind)
        if resource is None:
            return
        with _asking(f"watch {kind.name}s"):
            for event in self._events(resource, selector, version, max(1, round(timeout_s))):
                one = event["raw_object"]
                if event["type"] == "DELETED":
                    by_name.pop(one["metadata"]["name"], None)
                elif event["type"] in ("ADDED", "MODIFIED"):
                    by_name[one["metadata"]["name"]] = one
                yield list(by_name.values())

    def _events(self, resource: Any, selector: str, version: str, seconds: int) -> Iterator[Any]:
        """The server ends the stream after so many seconds; where it doesn't, the connection is given up."""
        from kubernetes.watch import Watch

        return Watch().stream(  # type: ignore[no-any-return]
            resource.get,
            namespace=self.namespace,
            label_selector=selector,
            resource_version=version,
            serialize=False,
            timeout_seconds=seconds,
            _request_timeout=seconds + REQUEST_TIMEOUT_S,
        )

    @property
    def _where(self) -> dict[str, Any]:
        return {"namespace": self.namespace, "_request_timeout": REQUEST_TIMEOUT_S}

    def _resource(self, kind: Kind) -> Any:
        from kubernetes.dynamic.exceptions import ResourceNotFoundError

        with _asking("look at the cluster"), suppress(ResourceNotFoundError):
            return self._dynamic.resources.get(api_version=kind.api_version, kind=kind.name)
        return None

    def _needed(self, kind: Kind) -> Any:
        found = self._resource(kind)
        if found is None:
            raise InputError(
                f"the cluster has no {kind.name} in {kind.api_version}",
                "its version is older, or the extension that defines it isn't installed",
                "install what brings it, or use another cluster",
            )
        return found

    def _list(self, kind: Kind, selector: str) -> tuple[list[Object], str]:
        resource = self._resource(kind)
        if resource is None:
            return [], ""
        with _asking(f"list {kind.name}s"):
            answer = self._read(resource.get(label_selector=selector, **self._where))
        return answer["items"], answer["metadata"]["resourceVersion"]

    def _put(self, verb: str, body: Object) -> Object:
        from kubernetes.dynamic.exceptions import ConflictError

        kind = Kind(body["apiVersion"], body["kind"])
        try:
            with _asking(f"{verb} {kind.name} {body['metadata']['name']}"):
                return self._read(getattr(self._needed(kind), verb)(body=body, **self._where))
        except ConflictError as error:
            raise Taken from error

    @staticmethod
    def _read(answer: Any) -> Object:
        made: Object = answer.to_dict()
        return made


class Taken(Exception):
    """Another client was faster."""


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn a refusal into an error without headers, which may hold a token; some are left to the caller."""
    from kubernetes.client import ApiException
    from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotFoundError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (NotFoundError, ResourceNotFoundError):
        raise
    except ConflictError as error:
        if conflicts := _conflicts(error.body):
            raise HgpuError(
                f"can't {what}: others manage fields of it",
                conflicts,
                "leave these fields to them by changing the plan, or take them over with --force-conflicts",
            ) from None
        raise
    except ApiException as error:
        raise HgpuError(f"can't {what}", _message(error), _advice(error.status)) from None
    except (HTTPError, OSError) as error:
        why = str(getattr(error, "reason", None) or error)
        raise HgpuError(f"can't {what}", why, "see --context, and whether the cluster answers") from None


def _conflicts(body: Any) -> str:
    details = _document(body).get("details") or {}
    causes = [c for c in details.get("causes", []) if c.get("reason") == "FieldManagerConflict"]
    return "; ".join(f"{cause.get('message')}: {cause.get('field')}" for cause in causes)


def _message(error: Any) -> str:
    return str(_document(error.body).get("message") or error.reason or f"status {error.status}")


def _document(body: Any) -> dict[str, Any]:
    with suppress(ValueError, TypeError):
        found = json.loads(body)
        return found if isinstance(found, dict) else {}
    return {}


def _advice(status: int | None) -> str:
    if status in (401, 403):
        return "the kubeconfig's user needs the rights that docs/deploy.md lists"
    return "see what the API server says"
