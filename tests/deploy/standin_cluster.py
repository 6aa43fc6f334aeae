"""Stands in for a cluster's API server, as far as hgpu uses it: discovery, lists by label, server-side apply
with ownership of fields, dry runs, resource versions, watches, deletion from the foreground.

And for what runs behind it: Deployments get pods that are ready at once (unless `sick`), and lose them.
Simpler than a real one: lists are owned as a whole, nothing is validated or defaulted, and admission,
authorisation and finalizers of others don't exist. `test_cluster.py` can take a real one, too.
"""

import asyncio
import copy
import itertools
import json
import sys
import threading
from contextlib import suppress
from typing import Any

from aiohttp import web

KINDS = {
    ("v1", "Service"): "services",
    ("v1", "Pod"): "pods",
    ("apps/v1", "Deployment"): "deployments",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "horizontalpodautoscalers",
    ("coordination.k8s.io/v1", "Lease"): "leases",
    ("inference.networking.k8s.io/v1", "InferencePool"): "inferencepools",
}
Path = tuple[str, ...]


def leaves(value: Any, path: Path = ()) -> dict[Path, Any]:
    if isinstance(value, dict) and value:
        return {p: v for key, part in value.items() for p, v in leaves(part, (*path, key)).items()}
    return {path: value}


def put(body: dict[str, Any], path: Path, value: Any) -> None:
    for step in path[:-1]:
        body = body.setdefault(step, {})
    body[path[-1]] = value


def cut(body: dict[str, Any], path: Path) -> None:
    for step in path[:-1]:
        body = body.get(step, {})
    body.pop(path[-1], None)


class Cluster:
    """The server, in a thread of its own. `requests` were made; `sick` pods never get ready."""

    def __init__(self, lacks: tuple[str, ...] = (), token: str = "") -> None:
        self.kinds = {key: plural for key, plural in KINDS.items() if key[1] not in lacks}
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}  # by plural, namespace, name
        self.owners: dict[tuple[str, str, str], dict[str, dict[Path, Any]]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.sick = False
        self.closed = False
        self.token = token
        self.versions = itertools.count(100)
        self.version = 100
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []  # version, plural, event, object
        self.changed: asyncio.Event | None = None
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        self.ready.wait(10)

    def close(self) -> None:
        self.act(self._hang_up)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def _hang_up(self) -> None:
        self.closed = True
        assert self.changed is not None
        self.changed.set()

    def names(self, plural: str) -> list[str]:
        return sorted(name for kind, _, name in self.objects if kind == plural)

    def act(self, what: Any, *words: Any) -> Any:
        """Call something in the server's thread, as a user or a controller would change things."""
        done = asyncio.run_coroutine_threadsafe(self._call(what, *words), self.loop)
        return done.result(10)

    async def _call(self, what: Any, *words: Any) -> Any:
        return what(*words)

    def edit(self, plural: str, name: str, path: Path, value: Any, manager: str) -> None:
        """Change a field of an object, as `kubectl edit` does: it's the manager's from then on."""
        key = (plural, "default", name)
        for fields in self.owners.setdefault(key, {}).values():
            fields.pop(path, None)
        self.owners[key].setdefault(manager, {})[path] = value
        body = copy.deepcopy(self.objects[key])
        put(body, path, value)
        self._store(key, body)

    def heal(self) -> None:
        self.sick = False
        for key in [key for key in self.objects if key[0] == "deployments"]:
            self._roll(key)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.changed = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        self.loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self.loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        asyncio.set_event_loop(None)
        self.loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path.strip("/"), dict(request.query)
        self.requests.append((request.method, path, query))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self._status(401, "Unauthorized")
        if (found := self._discovery(path)) is not None:
            return web.json_response(found)
        parts = path.split("/")
        parts = parts[1:] if parts[0] in ("api", "apis") else parts
        if "namespaces" not in parts:
            return self._status(404, "the server could not find the requested resource")
        where = parts.index("namespaces")
        api_version = "/".join(parts[:where])
        namespace, plural, *rest = parts[where + 1 :]
        if (api_version, plural) not in {(v, p) for (v, _), p in self.kinds.items()}:
            return self._status(404, "the server could not find the requested resource")
        if not rest:
            if request.method == "POST":
                body = await request.json()
                key = (plural, namespace, body["metadata"]["name"])
                if key in self.objects:
                    return self._status(409, f'{plural} "{key[2]}" already exists')
                return web.json_response(self._store(key, body), status=201)
            if query.get("watch"):
                return await self._watch(request, plural, namespace, query)
            items = self._selected(plural, namespace, query)
            return web.json_response(
                {"kind": "List", "metadata": {"resourceVersion": str(self.version)}, "items": items}
            )
        key = (plural, namespace, rest[0])
        return await self._one(request, key, query)

    async def _one(self, request: web.Request, key: Any, query: dict[str, str]) -> web.StreamResponse:
        if request.method == "PATCH":
            return self._apply(key, json.loads(await request.text()), query)
        if key not in self.objects:
            return self._status(404, f'{key[0]} "{key[2]}" not found')
        if request.method == "PUT":
            body = await request.json()
            if body["metadata"].get("resourceVersion") != self.objects[key]["metadata"]["resourceVersion"]:
                return self._status(409, "the object has been modified")
            return web.json_response(self._store(key, body))
        if request.method == "DELETE":
            assert (await request.json())["propagationPolicy"] in ("Foreground", "Background")
            self._delete(key)
            return self._status(200, "")
        return web.json_response(self.objects[key])

    def _apply(self, key: Any, body: dict[str, Any], query: dict[str, str]) -> web.Response:
        manager, force, dry = (
            query["fieldManager"],
            query.get("force", "").lower() == "true",
            query.get("dryRun") == "All",
        )
        wanted = {
            path: value
            for path, value in leaves(body).items()
            if path not in {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
        }
        owners = copy.deepcopy(self.owners.get(key, {}))
        made = copy.deepcopy(self.objects.get(key, body))
        causes = []
        for path, value in wanted.items():
            for other, fields in owners.items():
                if other != manager and path in fields and fields[path] != value:
                    if not force:
                        message = f'conflict with "{other}"'
                        field = "." + ".".join(path)
                        causes.append({"reason": "FieldManagerConflict", "message": message, "field": field})
                    fields.pop(path)
                    break
        if causes:
            return self._status(409, f"Apply failed with {len(causes)} conflicts", causes)
        for path in owners.get(manager, {}):
            if path not in wanted and not any(path in f for o, f in owners.items() if o != manager):
                cut(made, path)
        for path, value in wanted.items():
            put(made, path, value)
        if dry:
            return web.json_response(made)
        owners[manager] = wanted
        self.owners[key] = owners
        return web.json_response(self._store(key, made))

    def _store(self, key: Any, body: dict[str, Any]) -> dict[str, Any]:
        old = self.objects.get(key)
        body = copy.deepcopy(body)
        metadata = body["metadata"]
        if old is None or old.get("spec") != body.get("spec"):
            metadata["generation"] = (old or body)["metadata"].get("generation", 0) + 1
        if old is not None and {**old, "metadata": {**old["metadata"], "resourceVersion": 0}} == {
            **body,
            "metadata": {**metadata, "resourceVersion": 0},
        }:
            return old
        metadata["resourceVersion"] = str(self._tell(key[0], "MODIFIED" if old else "ADDED", body))
        metadata.setdefault("uid", f"uid-{metadata['resourceVersion']}")
        self.objects[key] = body
        if key[0] == "deployments" and (old is None or old.get("spec") != body.get("spec")):
            self.loop.call_soon(self._roll, key)
        if key[0] == "horizontalpodautoscalers":
            self.loop.call_soon(self._scale, body)
        return body

    def _scale(self, autoscaler: dict[str, Any]) -> None:
        """What the controller does without load: never fewer than the lower bound."""
        key = ("deployments", "default", autoscaler["spec"]["scaleTargetRef"]["name"])
        least = autoscaler["spec"]["minReplicas"]
        if key in self.objects and self.objects[key]["spec"].get("replicas", 1) < least:
            self.edit(key[0], key[2], ("spec", "replicas"), least, "kube-controller-manager")

    def _tell(self, plural: str, event: str, body: dict[str, Any]) -> int:
        self.version = next(self.versions)
        body["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, plural, event, copy.deepcopy(body)))
        assert self.changed is not None
        self.changed.set()
        self.changed = asyncio.Event()
        return self.version

    def _delete(self, key: Any) -> None:
        body = self.objects.pop(key)
        self.owners.pop(key, None)
        if key[0] == "deployments":
            for pod in [k for k in self.objects if k[0] == "pods" and k[2].startswith(f"{key[2]}-pod-")]:
                self._tell("pods", "DELETED", self.objects.pop(pod))
        self._tell(key[0], "DELETED", body)

    def _roll(self, key: Any) -> None:
        """What the controller and the kubelets do: as many pods as wanted, and a status."""
        if key not in self.objects:
            return
        body = self.objects[key]
        wanted = body["spec"].get("replicas", 1)
        for number in range(1000):
            pod = ("pods", key[1], f"{key[2]}-pod-{number}")
            if number < wanted:
                self._store(pod, self._pod(pod[2], body))
            elif pod in self.objects:
                self._delete(pod)
            else:
                break
        ready = 0 if self.sick else wanted
        status = {
            "observedGeneration": body["metadata"]["generation"], "replicas": wanted,
            "updatedReplicas": wanted, "readyReplicas": ready, "availableReplicas": ready,
        }  # fmt: skip
        self._store(key, body | {"status": status})

    def _pod(self, name: str, deployment: dict[str, Any]) -> dict[str, Any]:
        template = deployment["spec"]["template"]
        ready = {"type": "Ready", "status": "False" if self.sick else "True"}
        state = {"waiting": {"reason": "ImagePullBackOff"}} if self.sick else {"running": {}}
        return {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": template["metadata"]["labels"]},
            "spec": template["spec"],
            "status": {
                "phase": "Pending" if self.sick else "Running", "podIP": "10.0.0.1",
                "conditions": [ready], "containerStatuses": [{"state": state}],
            },
        }  # fmt: skip

    def _selected(self, plural: str, namespace: str, query: dict[str, str]) -> list[dict[str, Any]]:
        return [
            o
            for (p, n, _), o in sorted(self.objects.items())
            if (p, n) == (plural, namespace) and fits(o, query)
        ]

    async def _watch(
        self, request: web.Request, plural: str, namespace: str, query: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        seen = int(query["resourceVersion"])
        deadline = self.loop.time() + float(query["timeoutSeconds"])
        while self.loop.time() < deadline and not self.closed:
            changed = self.changed
            for version, kind, event, body in list(self.history):
                if version > seen:
                    seen = version
                    if kind == plural and fits(body, query):
                        line = json.dumps({"type": event, "object": body}) + "\n"
                        try:
                            await response.write(line.encode())
                        except ConnectionError:  # the client has seen enough
                            return response
            try:
                assert changed is not None
                await asyncio.wait_for(changed.wait(), deadline - self.loop.time())
            except TimeoutError:
                break
        with suppress(ConnectionError):  # the client has seen enough
            await response.write_eof()
        return response

    def _discovery(self, path: str) -> dict[str, Any] | None:
        groups = sorted({version for version, _ in self.kinds if "/" in version})
        if path == "version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "apis":
            rows = [(g.split("/")[0], {"groupVersion": g, "version": g.split("/")[1]}) for g in groups]
            return {
                "kind": "APIGroupList",
                "groups": [{"name": n, "versions": [v], "preferredVersion": v} for n, v in rows],
            }
        prefix, _, group = path.partition("/")
        if prefix in ("api", "apis") and (group == "v1" or group in groups):
            rows = [
                {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}
                for (version, kind), plural in self.kinds.items()
                if version == group
            ]  # fmt: skip
            return {"kind": "APIResourceList", "groupVersion": group, "resources": rows}
        return None

    def _status(self, code: int, message: str, causes: Any = ()) -> web.Response:
        body = {
            "kind": "Status",
            "code": code,
            "message": message,
            "metadata": {},
            "details": {"causes": list(causes)},
        }
        return web.json_response(body, status=code)


def write_kubeconfig(path: Any, cluster: dict[str, str], token: str) -> None:
    """Of a context `here`, with a user who has a token."""
    body = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    path.write_text(json.dumps(body))


def fits(body: dict[str, Any], query: dict[str, str]) -> bool:
    labels = body["metadata"].get("labels") or {}
    wanted = [one.split("=") for one in query.get("labelSelector", "").split(",") if one]
    return all(labels.get(key) == value for key, value in wanted)


if __name__ == "__main__":  # as a process of its own, until its standard input is closed
    print(Cluster().url, flush=True)
    sys.stdin.read()
