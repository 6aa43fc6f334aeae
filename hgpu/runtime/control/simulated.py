"""The control loop as the controller of a simulated fleet."""

from collections.abc import Sequence
from math import ceil

from hgpu.core.errors import HgpuError
from hgpu.latency.confidence import slower
from hgpu.runtime.control.goal import Solving, problem_at
from hgpu.runtime.control.loop import Decision, Load, Loop
from hgpu.runtime.control.pools import ControlledPool
from hgpu.runtime.control.routes import ready_routes
from hgpu.simulator.elastic import Orders, Seen
from hgpu.simulator.elastic_pool import ElasticPool
from hgpu.simulator.routing import Routing
from hgpu.solvers.demand import Demand


class SimulatedLoop:
    """Passes what is seen to a loop, and its decisions back; keeps them.

    `routing` is the one that the fleet begins with.
    """

    def __init__(self, loop: Loop, routing: Routing) -> None:
        self.loop, self.routing = loop, routing
        self.interval_s = loop.rules.interval_s
        self.decisions: list[Decision] = []

    def orders(self, seen: Seen) -> Orders:
        """Decide, and route over the engines that stay ready."""
        pools = self.loop.pools
        ready = [row.ready * pool.engines_per_machine for row, pool in zip(seen.pools, pools, strict=True)]
        waiting = sum(row.waiting for row in seen.pools)
        load = Load(seen.now_s, self.interval_s, seen.arrived, seen.ended, waiting=waiting)
        decision = self.loop.look(load, ready)
        self.decisions.append(decision)
        machines = machines_of(pools, decision.engines)
        stay = [
            min(have, count * pool.engines_per_machine)
            for have, count, pool in zip(ready, machines, pools, strict=True)
        ]
        self.routing = self._routes(stay) or self.routing
        return Orders(machines, self.routing)

    def _routes(self, ready: Sequence[int]) -> Routing | None:
        """Return the shares over those engines; None where the load has a bucket for nobody."""
        loop = self.loop
        try:
            problem = problem_at(loop.now, loop.pools, ready, loop.rules.solving)
        except HgpuError:
            return None
        return ready_routes(problem, loop.now, loop.pools, ready, loop.window.cells)


def first_orders(demand: Demand, pools: Sequence[ControlledPool], engines: Sequence[int]) -> Orders:
    """Return the orders that a fleet begins with: its machines, and its planned load levelled over them."""
    workload = demand.service.workload
    problem = problem_at(demand, pools, engines, Solving())
    routing = ready_routes(problem, demand, pools, engines, workload.buckets)
    return Orders(machines_of(pools, engines), routing)


def machines_of(pools: Sequence[ControlledPool], engines: Sequence[int]) -> tuple[int, ...]:
    """Return the machines that hold so many engines of each pool."""
    return tuple(ceil(count / pool.engines_per_machine) for pool, count in zip(pools, engines, strict=True))


def elastic_pools(demand: Demand, pools: Sequence[ControlledPool]) -> tuple[ElasticPool, ...]:
    """Return the machines to simulate, with steps as slow as the plan's confidence asks for."""
    models, factor = demand.candidates.latency, demand.candidates.factor
    return tuple(
        ElasticPool(
            pool.name,
            slower(models[pool.point], factor(pool.point)),
            pool.point.engine,
            pool.engines_per_machine,
            pool.offer.usd_per_hour,
        )
        for pool in pools
    )
