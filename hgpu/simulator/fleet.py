"""A trace replayed against pools of engines.

Requests are routed to pools by the shares of their bucket, and to the engines of a pool by a balancing
policy. Pools don't affect one another, so each is played on its own, request by request in order of arrival.
Nothing is dropped: a request that no bucket holds, that no engine of its pool can ever serve, or
whose pool has no engine is *rejected*, and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from random import Random

import numpy as np

from hgpu.artifacts.payloads.simulation import PoolRow
from hgpu.core.errors import UnknownName
from hgpu.core.operating_point import EngineOptions
from hgpu.core.phases import PhaseOptions
from hgpu.core.step import LatencyModel
from hgpu.simulator.arrivals import prefixes_of
from hgpu.simulator.balance import DEFAULT_BALANCER, Balancer, balancer_of
from hgpu.simulator.engine import BLOCK_TOKENS, Engine
from hgpu.simulator.limits import servable
from hgpu.simulator.result import EngineRun, RequestTimes
from hgpu.simulator.routing import NOBODY, Routing
from hgpu.workloads.trace import Ints, Trace


@dataclass(frozen=True, slots=True)
class EnginePool:
    """`engines` alike engines on `machines` machines that cost `usd_per_hour` together.

    `phases` is what their phase scheduler is told, None for vLLM's own scheduler.
    """

    name: str
    latency: LatencyModel
    engine: EngineOptions
    engines: int
    machines: int
    usd_per_hour: float
    phases: PhaseOptions | None = None

    def less_a_machine(self) -> "EnginePool":
        """Return the pool without one machine, its engines and its price."""
        left = self.machines - 1
        return replace(
            self,
            engines=self.engines * left // self.machines,
            machines=left,
            usd_per_hour=self.usd_per_hour * left / self.machines,
        )


@dataclass(frozen=True, slots=True)
class Fleet:
    """Pools, and the share of each bucket that each takes."""

    pools: tuple[EnginePool, ...]
    routing: Routing

    @property
    def usd_per_hour(self) -> float:
        """Cost of all machines."""
        return sum(pool.usd_per_hour for pool in self.pools)

    def less_a_machine(self, name: str) -> "Fleet":
        """Return the fleet without one machine of a pool; the routing stays. Raises UnknownName."""
        if name not in {pool.name for pool in self.pools}:
            raise UnknownName("pool", name, [pool.name for pool in self.pools])
        pools = tuple(pool.less_a_machine() if pool.name == name else pool for pool in self.pools)
        return replace(self, pools=pools)


@dataclass(frozen=True, slots=True, eq=False)
class FleetRun:
    """Times of the requests that were served, in order of arrival, and what each pool did.

    `tier` and `pool` are numbers, of the requests that were served. `requests` counts those that were
    rejected too, by tier; those outside of all buckets have none and count for each. `makespan_s` runs
    from the first arrival to the last token or the last arrival.
    """

    served: RequestTimes
    input_tokens: Ints
    tier: Ints
    pool: Ints
    requests: int
    tier_requests: tuple[int, ...]
    makespan_s: float
    pools: tuple[PoolRow, ...]

    @property
    def rejected(self) -> int:
        """Requests that nobody could serve."""
        return self.requests - len(self.input_tokens)


def replay(
    fleet: Fleet,
    trace: Trace,
    balance: str = DEFAULT_BALANCER,
    seed: int = 0,
    prefix_caching: bool = False,
    phases: PhaseOptions | None = None,
) -> FleetRun:
    """Return what a fleet makes of a trace. The same seed gives the same run.

    With `prefix_caching`, each engine reuses the prefixes that it has computed itself. With `phases`, each
    decides about prompts by that policy, on its own pool's step model.
    Raises UnknownName for a balancing policy that there isn't, InputError for engine options that vLLM
    refuses and for a policy that means nothing.
    """
    routed, tiers = fleet.routing.pools_of(trace.input_tokens, trace.output_tokens)
    played = []
    for number, pool in enumerate(fleet.pools):
        balancer = balancer_of(balance, Random(f"{seed} {pool.name}"))
        mine = np.flatnonzero(routed == number)
        played.append(_play(pool, trace, mine, balancer, prefix_caching, phases))
    ends_s = [run.end_s.max(initial=0.0) for pool in played for run in pool.runs]
    makespan_s = float(max([trace.duration_s, *ends_s]))
    numbers = np.concatenate([pool.numbers for pool in played])
    order = np.argsort(numbers)
    outside = int((tiers == NOBODY).sum())
    return FleetRun(
        joined_times([run for pool in played for run in pool.runs], order),
        trace.input_tokens[numbers[order]],
        tiers[numbers[order]],
        routed[numbers[order]],
        trace.requests,
        tuple(int((tiers == tier).sum()) + outside for tier in range(len(fleet.routing.tiers))),
        makespan_s,
        tuple(
            pool_row(pool.name, pool.engines, pool.engines * makespan_s, made)
            for pool, made in zip(fleet.pools, played, strict=True)
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """The run of each engine of a pool, and the numbers of the requests, engine by engine."""

    runs: tuple[EngineRun, ...]
    numbers: Ints
    rejected: int
    hit_share: float | None


def _play(
    pool: EnginePool,
    trace: Trace,
    mine: Ints,
    balancer: Balancer,
    prefix_caching: bool,
    phases: PhaseOptions | None,
) -> Played:
    """Hand a pool's requests to its engines."""
    inputs, outputs = trace.input_tokens[mine], trace.output_tokens[mine]
    total_blocks = pool.latency.kv_capacity_tokens // BLOCK_TOKENS
    fits = servable(inputs, outputs, pool.engine, total_blocks, BLOCK_TOKENS) & (pool.engines > 0)
    kept = mine[fits]
    prefixes, prefix_tokens = prefixes_of(trace, BLOCK_TOKENS) if prefix_caching else ((), None)
    engines = [
        Engine(pool.latency, pool.engine, prefix_tokens=prefix_tokens, phases=phases or pool.phases)
        for _ in range(pool.engines)
    ]
    took: list[list[int]] = [[] for _ in engines]
    columns = (kept, trace.arrivals_s[kept], inputs[fits], outputs[fits])
    for number, arrival_s, input_tokens, output_tokens in zip(*(c.tolist() for c in columns), strict=True):
        which = balancer.pick(engines, arrival_s)
        engines[which].give(arrival_s, input_tokens, output_tokens, prefixes[number] if prefixes else ())
        took[which].append(number)
    for engine in engines:
        engine.advance(inf)
    numbers = np.array([number for part in took for number in part], np.int64)
    runs = tuple(engine.run() for engine in engines)
    hit_tokens = sum(int(run.hit_tokens.sum()) for run in runs)
    hit_share = hit_tokens / int(inputs[fits].sum()) if prefix_caching and len(kept) else None
    return Played(runs, numbers, len(mine) - len(kept), hit_share)


def joined_times(runs: Sequence[EngineRun], order: Ints) -> RequestTimes:
    """Join the requests of all engines, in order of arrival."""

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(run, name) for run in runs] or [np.empty(0)])[order]

    return RequestTimes(
        *(joined(name) for name in ("arrival_s", "start_s", "first_token_s", "end_s", "output_tokens"))
    )


def pool_row(name: str, engines: int, engine_s: float, played: Played) -> PoolRow:
    """Return what a pool did in so many seconds of its engines."""
    runs = played.runs
    steps = sum(run.steps for run in runs)
    return PoolRow(
        pool=name,
        engines=engines,
        requests=len(played.numbers),
        rejected=played.rejected,
        utilization=sum(run.busy_s for run in runs) / engine_s if engine_s else 0.0,
        mean_batch=sum(run.seq_steps for run in runs) / steps if steps else 0.0,
        max_kv_share=max(
            (run.max_kv_tokens / run.kv_capacity_tokens for run in runs if run.steps), default=0.0
        ),
        preemptions=sum(int(run.preemptions.sum()) for run in runs),
        hit_share=played.hit_share,
    )
