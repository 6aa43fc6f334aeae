"""What `hgpu autoscale` calls: load a plan and its latency models, read the load, decide, serve."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact
from hgpu.commands.simulating import latency_of_inputs
from hgpu.core.errors import EngineError, InputError
from hgpu.deploy.render.document import default_name, pool_slug, require_dns_label
from hgpu.report.output import note
from hgpu.runtime.control.endpoint import Deployments, address_of, app_of
from hgpu.runtime.control.goal import Solving
from hgpu.runtime.control.loop import Loop, Rules
from hgpu.runtime.control.pools import controlled_pools, demand_of
from hgpu.runtime.control.sources import Reader, sources_of
from hgpu.runtime.control.watch import Decided, Watch

UNPROFILED = "its operating point has no latency model here"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants scaled, and how."""

    plan: str
    root: Path
    metrics: Sequence[str]
    interval_s: float
    startup_s: float
    hold_s: float
    most: Sequence[str]
    budget_usd_per_hour: float | None
    change_usd_per_hour: float
    name: str
    namespace: str


async def decide_once(asked: Asked) -> Decided:
    """Read the load twice, an interval apart, and decide. Raises EngineError where it can't be read."""
    from aiohttp import ClientSession

    plan, watch, unprofiled = _prepared(asked)
    async with ClientSession() as session:
        await watch.look(session)
        await asyncio.sleep(asked.interval_s)
        decision = await watch.look(session)
    if decision is None or watch.loop is None:
        raise EngineError(
            "the load couldn't be read twice",
            f"{watch.readings} of 2 readings succeeded" if watch.readings < 2 else "no engine answered both",
            "see the lines above for why, and give URLs whose /metrics answer",
        )
    pools = watch.loop.pools
    answering = tuple(watch.answering[pool.name] for pool in pools)
    return Decided(plan.digest, pools, answering, unprofiled, watch.silent, decision)


async def watch_on(asked: Asked, listen: str) -> None:
    """Decide until interrupted; with an address, serve the counts there."""
    from aiohttp import ClientSession, web

    plan, watch, unprofiled = _prepared(asked)
    runner = None
    if listen:
        host, port = address_of(listen)
        app = app_of(watch, deployments_of(plan.payload, asked.name, asked.namespace, unprofiled))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        await site.start()
        for address in runner.addresses:
            note(f"listening on http://{address[0]}:{address[1]}")
    try:
        async with ClientSession() as session:
            await watch.forever(session, asked.interval_s)
    finally:
        if runner is not None:
            await runner.cleanup()


def deployments_of(plan: PlanPayload, name: str, namespace: str, unprofiled: Sequence[str]) -> Deployments:
    """Return which pool each Deployment is of that `hgpu deploy --target aibrix` renders for a plan."""
    name = name or default_name(plan)
    require_dns_label("name", name)
    places = {row.pool: (namespace, f"{name}-{pool_slug(row)}") for row in plan.allocation}
    return Deployments(
        name,
        {place: pool for pool, place in places.items() if pool not in unprofiled},
        {places[pool]: UNPROFILED for pool in unprofiled},
    )


def _prepared(asked: Asked) -> tuple[Artifact[PlanPayload], Watch, tuple[str, ...]]:
    """Return the plan, the watch over its pools, and the pools that can't be scaled."""
    plan: Artifact[PlanPayload] = resolve(asked.root, asked.plan, "plan")
    if asked.plan == "latest":
        note(f"latest plan is {plan.short} at {plan.path}")
    found, _ = latency_of_inputs(plan, asked.root)
    models = {point: artifact.payload.latency for point, artifact in found.items()}
    pools = controlled_pools(plan.payload, models, caps_of(asked.most))
    unprofiled = tuple(row.pool for row in plan.payload.allocation if row.point not in models)
    for pool in unprofiled:
        note(f"pool {pool} is left as it is: {UNPROFILED}")
    demand = demand_of(plan.payload, pools, models)
    rules = Rules(
        interval_s=asked.interval_s,
        startup_s=asked.startup_s,
        hold_s=asked.hold_s,
        solving=Solving(asked.change_usd_per_hour, asked.budget_usd_per_hour),
    )

    def start(there: dict[str, int]) -> Loop:
        return Loop(demand, pools, [there[pool.name] for pool in pools], rules)

    sources = sources_of(asked.metrics, [pool.name for pool in pools])
    return plan, Watch(Reader(sources), start, note), unprofiled


def caps_of(words: Sequence[str]) -> dict[str, int]:
    """Return the caps of words such as `l4=8`, or raise InputError."""
    caps = {}
    for word in words:
        pool, _, number = word.rpartition("=")
        if not pool or not (number.isascii() and number.isdigit() and len(number) < 7):
            raise InputError(
                f"'{word}' is no cap", "a cap is a pool and a whole number", "give POOL=N, such as --max l4=8"
            )
        caps[pool] = int(number)
    return caps
