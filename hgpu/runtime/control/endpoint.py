"""AIBrix's GPU-optimizer endpoint: the engines that each Deployment is to have, in hundredths.

    GET /metrics/{namespace}/{deployment}   vllm:deployment_replicas, what a PodAutoscaler asks for
    GET /metrics                            how old the data is, and how often reading it failed
    GET /healthz                            200 while it runs

A Deployment that is unknown, or whose GPU has no latency model, is answered 404, and 503 before the first
decision: a PodAutoscaler that gets no number keeps what it has. The line that it reads comes first, as
AIBrix takes the first line that holds the metric's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hgpu.core.errors import InputError
from hgpu.runtime.control.watch import Watch

if TYPE_CHECKING:
    from aiohttp import web

METRIC = "vllm:deployment_replicas"
HUNDREDTHS = 100


@dataclass(frozen=True, slots=True)
class Deployments:
    """Which pool a Deployment (namespace, name) is of, and why some aren't scaled."""

    model_name: str
    pools: Mapping[tuple[str, str], str]
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)


def app_of(watch: Watch, deployments: Deployments) -> "web.Application":
    """Return the server's application."""
    from aiohttp import web

    async def replicas(request: web.Request) -> web.Response:
        namespace, name = request.match_info["namespace"], request.match_info["deployment"]
        status, text = replicas_text(watch, deployments, namespace, name)
        if status != 200:
            return web.json_response({"error": text}, status=status)
        return web.Response(text=text, content_type="text/plain")

    async def own(_: web.Request) -> web.Response:
        return web.Response(text=own_text(watch), content_type="text/plain")

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n", content_type="text/plain")

    app = web.Application()
    app.router.add_get("/metrics/{namespace}/{deployment}", replicas)
    app.router.add_get("/metrics", own)
    app.router.add_get("/healthz", health)
    return app


def replicas_text(watch: Watch, deployments: Deployments, namespace: str, name: str) -> tuple[int, str]:
    """Return the status and the text for a Deployment: the metric, or why there is none."""
    place = (namespace, name)
    if place in deployments.refused:
        return 404, f"{namespace}/{name} isn't scaled: {deployments.refused[place]}"
    if place not in deployments.pools:
        known = ", ".join("/".join(there) for there in sorted(deployments.pools))
        return 404, f"no deployment {namespace}/{name} is known; there are {known}"
    if watch.decision is None or watch.loop is None:
        return 503, "nothing is decided yet: the load must be read twice"
    names = [pool.name for pool in watch.loop.pools]
    engines = watch.decision.engines[names.index(deployments.pools[place])]
    label = deployments.model_name.replace("\\", "\\\\").replace('"', '\\"')
    return 200, (
        f"# HELP {METRIC} Engines that the deployment is to have, in hundredths.\n# TYPE {METRIC} gauge\n"
        f'{METRIC}{{model_name="{label}"}} {engines * HUNDREDTHS}\n'
    )


def own_text(watch: Watch) -> str:
    """Return the controller's own metrics."""
    rows: list[tuple[str, str, str, float]] = [
        ("hgpu_autoscale_readings_total", "counter", "Times that the load was read.", watch.readings),
        ("hgpu_autoscale_failures_total", "counter", "Times that a look failed.", watch.failures),
        ("hgpu_autoscale_silent_engines", "gauge", "Addresses that didn't answer.", len(watch.silent)),
    ]
    if watch.age_s is not None:
        rows.append(("hgpu_autoscale_data_age_seconds", "gauge", "Since the load was read.", watch.age_s))
    if watch.decision is not None:
        need, cost = watch.decision.need_rps, watch.decision.usd_per_hour
        rows.append(("hgpu_autoscale_need_rps", "gauge", "Requests per second to carry.", need))
        rows.append(("hgpu_autoscale_usd_per_hour", "gauge", "Price of the engines asked for.", cost))
        beyond = watch.decision.beyond
        rows.append(("hgpu_autoscale_beyond_share", "gauge", "Requests that no pool serves in time.", beyond))
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {value:g}\n" for name, kind, text, value in rows
    )


def address_of(text: str) -> tuple[str, int]:
    """Return the host and the port of `HOST:PORT`, or raise InputError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InputError(f"'{text}' is no address to listen on", "", "give such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)
