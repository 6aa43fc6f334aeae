"""A trace replayed against a fleet that a controller changes as it goes.

Every `interval_s` the controller is told what a real one could know by then (how many requests arrived, the
lengths of those that ended, machines, queues) and answers how many machines each pool is to have and who
takes what. It gets numbers only: nothing that it is handed leads to a request that hasn't arrived.
A fleet that nobody changes gives the same run as `replay`, to the last bit.
"""

from dataclasses import dataclass
from math import inf
from random import Random
from typing import Protocol

import numpy as np

from hgpu.core.errors import InputError
from hgpu.simulator.balance import DEFAULT_BALANCER, balancer_of
from hgpu.simulator.elastic_pool import ElasticPool, Paid, PoolState
from hgpu.simulator.engine import BLOCK_TOKENS
from hgpu.simulator.fleet import FleetRun, joined_times, pool_row
from hgpu.simulator.limits import servable
from hgpu.simulator.routing import NOBODY, Dispatch, Routing
from hgpu.workloads.trace import Ints, Trace


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """What can be seen of a pool: its machines, and the requests that its engines run and hold waiting."""

    ready: int
    starting: int
    running: int
    waiting: int

    @property
    def in_flight(self) -> int:
        """Requests that run or wait."""
        return self.running + self.waiting


@dataclass(frozen=True, slots=True)
class Seen:
    """What a controller is told: since the last time, arrivals, and (input, output) tokens of what ended."""

    now_s: float
    arrived: int
    ended: tuple[tuple[int, int], ...]
    pools: tuple[PoolSeen, ...]


@dataclass(frozen=True, slots=True)
class Orders:
    """How many machines each pool is to have, those that start included, and who takes which requests."""

    machines: tuple[int, ...]
    routing: Routing


class Controller(Protocol):
    """Decides every `interval_s` seconds."""

    interval_s: float

    def orders(self, seen: Seen) -> Orders:
        """Return what is to be from now on."""


@dataclass(frozen=True, slots=True)
class Unchanging:
    """The controller of a static fleet."""

    fixed: Orders
    interval_s: float = inf

    def orders(self, seen: Seen) -> Orders:
        """Return the same every time."""
        return self.fixed


@dataclass(frozen=True, slots=True, eq=False)
class ElasticRun:
    """What became of the requests, what was paid for which machines, and all orders by their time."""

    run: FleetRun
    paid: tuple[Paid, ...]
    usd: float
    orders: tuple[tuple[float, tuple[int, ...]], ...]


def play(
    pools: tuple[ElasticPool, ...],
    trace: Trace,
    controller: Controller,
    first: Orders,
    startup_s: float,
    balance: str = DEFAULT_BALANCER,
    seed: int = 0,
) -> ElasticRun:
    """Return what a controlled fleet makes of a trace; the machines of `first` serve from the first moment.

    Raises InputError for orders that don't fit the pools.
    """
    states = [
        PoolState(pool, balancer_of(balance, Random(f"{seed} {pool.name}")), startup_s, count)
        for pool, count in zip(pools, first.machines, strict=True)
    ]
    course = _Course(states, trace, first)
    tick_s = controller.interval_s
    while tick_s <= trace.duration_s:
        course.play_until(tick_s)
        course.obey(tick_s, controller.orders(course.seen(tick_s)))
        tick_s += controller.interval_s
    course.play_until(inf)
    return course.result()


class _Course:
    """A replay in progress."""

    def __init__(self, states: list[PoolState], trace: Trace, first: Orders) -> None:
        self.states, self.trace = states, trace
        self.history = [(0.0, first.machines)]
        self.dispatch = Dispatch(first.routing)
        self.done = self.seen_before = 0
        self.pool = np.full(trace.requests, NOBODY, np.int64)
        self.tier = np.full(trace.requests, NOBODY, np.int64)

    def play_until(self, until_s: float) -> None:
        """Hand out the requests that arrive before a moment."""
        trace, first = self.trace, self.done
        end = int(np.searchsorted(trace.arrivals_s, until_s, side="left"))
        inputs, outputs = trace.input_tokens[first:end], trace.output_tokens[first:end]
        routed, tiers = self.dispatch.pools_of(inputs, outputs)
        self.pool[first:end], self.tier[first:end] = routed, tiers
        for number, state in enumerate(self.states):
            self._hand_out(state, inputs, outputs, np.flatnonzero(routed == number))
        self.done = end

    def _hand_out(self, state: PoolState, inputs: Ints, outputs: Ints, mine: Ints) -> None:
        engine, blocks = state.pool.engine, state.pool.latency.kv_capacity_tokens // BLOCK_TOKENS
        fits = servable(inputs[mine], outputs[mine], engine, blocks, BLOCK_TOKENS)
        state.rejected += int((~fits).sum())
        kept = mine[fits]
        numbers = kept + self.done
        columns = (numbers, self.trace.arrivals_s[numbers], inputs[kept], outputs[kept])
        for request in zip(*(column.tolist() for column in columns), strict=True):
            state.give(*request)

    def seen(self, now_s: float) -> Seen:
        """Return what can be seen now."""
        looks = [state.look(now_s) for state in self.states]
        arrived, self.seen_before = self.done - self.seen_before, self.done
        return Seen(
            now_s,
            arrived,
            tuple(lengths for ended, _, _ in looks for lengths in ended),
            tuple(
                PoolSeen(len(state.ready), len(state.starting), running, waiting)
                for state, (_, running, waiting) in zip(self.states, looks, strict=True)
            ),
        )

    def obey(self, now_s: float, orders: Orders) -> None:
        """Order and take away machines, and route as told."""
        if len(orders.machines) != len(self.states) or min(orders.machines, default=0) < 0:
            raise InputError(f"bad orders {orders.machines}", f"there are {len(self.states)} pools")
        for state, wanted in zip(self.states, orders.machines, strict=True):
            state.scale(now_s, wanted)
        if orders.routing != self.dispatch.routing:
            self.dispatch = Dispatch(orders.routing)
        if orders.machines != self.history[-1][1]:
            self.history.append((now_s, orders.machines))

    def result(self) -> ElasticRun:
        """Play what is left and return what came of it all."""
        for state in self.states:
            state.finish()
        played = [state.played for state in self.states]
        runs = [run for pool in played for run in pool.runs]
        makespan_s = float(max([self.trace.duration_s, *(run.end_s.max(initial=0.0) for run in runs)]))
        paid = tuple(
            Paid(row.pool, row.from_s, min(row.to_s, makespan_s)) for s in self.states for row in s.paid
        )
        prices = {state.pool.name: state.pool.usd_per_machine_hour for state in self.states}
        usd = sum((row.to_s - row.from_s) / 3600 * prices[row.pool] for row in paid)
        rows = []
        for state, made in zip(self.states, played, strict=True):
            machine_s = sum(row.to_s - row.from_s for row in paid if row.pool == state.pool.name)
            engine_s = machine_s * state.pool.engines_per_machine
            rows.append(pool_row(state.pool.name, state.most_engines, engine_s, made))
        numbers = np.concatenate([made.numbers for made in played])
        order = np.argsort(numbers)
        kept = numbers[order]
        outside = int((self.tier == NOBODY).sum())
        tiers = range(len(self.dispatch.routing.tiers))
        run = FleetRun(
            joined_times(runs, order),
            self.trace.input_tokens[kept],
            self.tier[kept],
            self.pool[kept],
            self.trace.requests,
            tuple(int((self.tier == tier).sum()) + outside for tier in tiers),
            makespan_s,
            tuple(rows),
        )
        return ElasticRun(run, paid, usd, tuple(self.history))
