"""Which engine of a pool takes a request: the policies of request routers.

An engine that a policy doesn't look at isn't advanced, so an arrival costs what its policy looks at:
nothing for round robin, two engines for the power of two choices, all of them for the least requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from hgpu.core.errors import UnknownName
from hgpu.simulator.engine import Engine


class Balancer(Protocol):
    """Chooses for one pool, request by request."""

    def pick(self, engines: Sequence[Engine], now_s: float) -> int:
        """Return the number of the engine that takes the request which arrives now."""


@dataclass(slots=True)
class PowerOfTwo:
    """Of two engines drawn at random, the one with fewer requests in flight; the first where they tie.

    Mitzenmacher, "The power of two choices in randomized load balancing" (2001).
    """

    draw: Random

    def pick(self, engines: Sequence[Engine], now_s: float) -> int:
        """Look at two engines."""
        if len(engines) == 1:
            return 0
        one = int(self.draw.random() * len(engines))
        other = int(self.draw.random() * (len(engines) - 1))
        other += other >= one
        return other if _load(engines[other], now_s) < _load(engines[one], now_s) else one


@dataclass(slots=True)
class RoundRobin:
    """Each engine in turn, however full it is."""

    turn: int = -1

    def pick(self, engines: Sequence[Engine], now_s: float) -> int:
        """Look at none."""
        self.turn = (self.turn + 1) % len(engines)
        return self.turn


@dataclass(slots=True)
class LeastRequests:
    """The engine with the fewest requests in flight; the first of those that tie."""

    def pick(self, engines: Sequence[Engine], now_s: float) -> int:
        """Look at all."""
        loads = [_load(engine, now_s) for engine in engines]
        return loads.index(min(loads))


BALANCERS: dict[str, Callable[[Random], Balancer]] = {
    "power_of_two": PowerOfTwo,
    "round_robin": lambda _: RoundRobin(),
    "least_requests": lambda _: LeastRequests(),
}
DEFAULT_BALANCER = "power_of_two"


def check_balancer(name: str) -> None:
    """Raise UnknownName for a policy that there isn't."""
    if name not in BALANCERS:
        raise UnknownName("balancing policy", name, BALANCERS)


def balancer_of(name: str, draw: Random) -> Balancer:
    """Return a policy for one pool, or raise UnknownName."""
    check_balancer(name)
    return BALANCERS[name](draw)


def _load(engine: Engine, now_s: float) -> int:
    engine.advance(now_s)
    return engine.in_flight(now_s)
