"""Machines of one kind that come and go while requests arrive.

A machine is paid from its order. It serves `startup_s` later. Taken away while it starts, it is paid until
then; taken away later, it gets no new request and is paid until the last of those that it has is ended.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf, isnan

import numpy as np

from hgpu.core.operating_point import EngineOptions
from hgpu.core.step import LatencyModel
from hgpu.simulator.balance import Balancer
from hgpu.simulator.engine import Engine
from hgpu.simulator.fleet import Played


@dataclass(frozen=True, slots=True)
class ElasticPool:
    """A kind of machine that may be rented: the engines on each, and what an hour of one costs."""

    name: str
    latency: LatencyModel
    engine: EngineOptions
    engines_per_machine: int
    usd_per_machine_hour: float


@dataclass(frozen=True, slots=True)
class Paid:
    """A machine of a pool, paid from one moment to another; `to_s` is infinite while nobody ended it."""

    pool: str
    from_s: float
    to_s: float


@dataclass(slots=True)
class Member:
    """An engine with what it was given: numbers of requests, and which of its own haven't ended."""

    engine: Engine
    numbers: list[int] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)
    open: list[int] = field(default_factory=list)

    def ended(self, now_s: float) -> Iterator[tuple[int, int]]:
        """Yield the lengths of the requests that ended since the last call."""
        still = []
        for mine in self.open:
            end_s = self.engine.end_s[mine]
            if isnan(end_s) or end_s > now_s:
                still.append(mine)
            else:
                yield self.lengths[mine]
        self.open = still


@dataclass(slots=True)
class Machine:
    """A machine, from its order to its end."""

    ordered_s: float
    ready_s: float
    members: list[Member]
    released_s: float = inf

    @property
    def in_flight(self) -> int:
        """Requests that it was given and hasn't ended, as of the last look."""
        return sum(len(member.open) for member in self.members)

    @property
    def paid_until_s(self) -> float:
        """When it ends: infinite where nobody takes it away."""
        if self.released_s == inf or self.released_s < self.ready_s:
            return self.released_s
        ends_s = [max(member.engine.end_s, default=0.0) for member in self.members]
        return max(self.released_s, *ends_s)


class PoolState:
    """What a pool is at a moment; time only goes forward."""

    def __init__(self, pool: ElasticPool, balancer: Balancer, startup_s: float, first: int) -> None:
        self.pool, self.balancer, self.startup_s = pool, balancer, startup_s
        self.machines = [self._machine(0.0, 0.0) for _ in range(first)]  # every one there ever was
        self.starting: list[Machine] = []
        self.ready = list(self.machines)
        self.draining: list[Machine] = []
        self.serving: list[Member] = []
        self.engines: list[Engine] = []
        self.rejected = 0
        self.most_engines = 0
        self._list_engines()

    def _machine(self, now_s: float, ready_s: float) -> Machine:
        pool = self.pool
        members = [Member(Engine(pool.latency, pool.engine)) for _ in range(pool.engines_per_machine)]
        return Machine(now_s, ready_s, members)

    def _list_engines(self) -> None:
        self.serving = [member for machine in self.ready for member in machine.members]
        self.engines = [member.engine for member in self.serving]
        self.most_engines = max(self.most_engines, len(self.engines))

    def reach(self, now_s: float) -> None:
        """Let machines serve that have started by now."""
        if self.starting and self.starting[0].ready_s <= now_s:
            self.ready += [machine for machine in self.starting if machine.ready_s <= now_s]
            self.starting = [machine for machine in self.starting if machine.ready_s > now_s]
            self._list_engines()

    def give(self, number: int, arrival_s: float, input_tokens: int, output_tokens: int) -> None:
        """Hand a request that arrives now to an engine; rejected where there is none."""
        self.reach(arrival_s)
        if not self.engines:
            self.rejected += 1
            return
        member = self.serving[self.balancer.pick(self.engines, arrival_s)]
        member.engine.give(arrival_s, input_tokens, output_tokens)
        member.open.append(len(member.numbers))
        member.numbers.append(number)
        member.lengths.append((input_tokens, output_tokens))

    def scale(self, now_s: float, wanted: int) -> None:
        """Order machines, or take away those that start, the last first, then those with the fewest requests.

        Machines that drain don't come back.
        """
        have = len(self.ready) + len(self.starting)
        for _ in range(wanted - have):
            machine = self._machine(now_s, now_s + self.startup_s)
            self.machines.append(machine)
            self.starting.append(machine)
        for _ in range(have - wanted):
            if self.starting:
                self.starting.pop().released_s = now_s
            else:
                machine = min(reversed(self.ready), key=lambda machine: machine.in_flight)
                machine.released_s = now_s
                self.ready.remove(machine)
                self.draining.append(machine)
        self.reach(now_s)
        self._list_engines()

    def look(self, now_s: float) -> tuple[list[tuple[int, int]], int, int]:
        """Return the lengths of requests that ended since the last look, and how many run and wait."""
        self.reach(now_s)
        ended: list[tuple[int, int]] = []
        running = waiting = 0
        for machine in self.ready + self.draining:
            for member in machine.members:
                member.engine.advance(now_s)
                ended += member.ended(now_s)
                queue = len(member.engine.waiting)
                waiting += queue
                running += member.engine.in_flight(now_s) - queue
        self.draining = [machine for machine in self.draining if machine.in_flight]
        return ended, running, waiting

    def finish(self) -> None:
        """Play all engines to their end."""
        for machine in self.machines:
            for member in machine.members:
                member.engine.advance(inf)

    @property
    def played(self) -> Played:
        """The runs of all engines there ever were, and their requests."""
        members = [member for machine in self.machines for member in machine.members]
        numbers = np.array([number for member in members for number in member.numbers], np.int64)
        return Played(tuple(member.engine.run() for member in members), numbers, self.rejected, None)

    @property
    def paid(self) -> list[Paid]:
        """When each machine was paid."""
        return [Paid(self.pool.name, m.ordered_s, m.paid_until_s) for m in self.machines]
