"""A threshold autoscaler, as users of HPA and KEDA have it: the baseline to beat.

It is Kubernetes' HorizontalPodAutoscaler (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale,
"Algorithm details"; KEDA feeds the same one) on requests in flight an engine, with its defaults:

    desired = ceil(current · (requests in flight an engine) / target)

nothing changes while that ratio is within 10 % of 1; engines that don't answer yet count as idle where more
are wanted; at most four more, or twice as many, in a look; less only down to the highest of the last 300 s.
Each pool scales by itself, and requests go by the plan's shares, as nobody re-plans them.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from hgpu.simulator.elastic import Orders, PoolSeen, Seen
from hgpu.simulator.routing import Routing

TOLERANCE = 0.1
STABLE_S = 300.0
MOST_MORE = 4


@dataclass(slots=True)
class Scaler:
    """Scales one pool of machines; never below `least`, nor above `most`."""

    target_in_flight: float
    engines_per_machine: int = 1
    least: int = 1
    most: int = 1000
    wanted: deque[tuple[float, int]] = field(default_factory=deque)

    def machines(self, now_s: float, seen: PoolSeen) -> int:
        """Return how many machines there are to be."""
        current = seen.ready + seen.starting
        desired = min(max(self._desired(seen), self.least), self.most)
        desired = min(desired, max(current + MOST_MORE, 2 * current))
        self.wanted.append((now_s, desired))
        while self.wanted[0][0] < now_s - STABLE_S:
            self.wanted.popleft()
        return desired if desired >= current else min(current, max(n for _, n in self.wanted))

    def _desired(self, seen: PoolSeen) -> int:
        current = seen.ready + seen.starting
        if not seen.ready:
            return current
        each = self.target_in_flight * self.engines_per_machine
        ratio = seen.in_flight / (seen.ready * each)
        if ratio > 1:
            ratio = max(1.0, seen.in_flight / (current * each))
            return current if ratio <= 1 + TOLERANCE else ceil(current * ratio)
        return current if ratio >= 1 - TOLERANCE else ceil(seen.ready * ratio)


@dataclass(slots=True)
class Reactive:
    """The controller of a fleet whose pools scale by threshold."""

    scalers: Sequence[Scaler]
    routing: Routing
    interval_s: float = 15.0

    def orders(self, seen: Seen) -> Orders:
        """Return what each pool's scaler wants."""
        return Orders(
            tuple(s.machines(seen.now_s, p) for s, p in zip(self.scalers, seen.pools, strict=True)),
            self.routing,
        )
