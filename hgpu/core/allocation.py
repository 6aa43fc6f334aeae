"""The answer: how many of what, and who serves which requests."""

from dataclasses import dataclass, field

from hgpu.core.offer import Offer
from hgpu.core.operating_point import OperatingPoint


@dataclass(frozen=True, slots=True)
class Pool:
    """`count` machines of one offer, all running engines at one operating point.

    `load_engines` is the work that the pool carries, in fully used engines.
    """

    offer: Offer
    point: OperatingPoint
    count: int
    load_engines: float

    @property
    def engines_per_machine(self) -> int:
        """Engines that fit on one machine."""
        return self.offer.gpu_count // self.point.tp

    @property
    def engines(self) -> int:
        """Engines of the whole pool."""
        return self.count * self.engines_per_machine

    @property
    def usd_per_hour(self) -> float:
        """Cost of the pool."""
        return self.count * self.offer.usd_per_hour

    @property
    def utilization(self) -> float:
        """Carried work as a part of what the pool can carry."""
        return self.load_engines / self.engines


@dataclass(frozen=True, slots=True)
class Allocation:
    """Pools, and the share of each bucket (row) that each pool (column) serves."""

    pools: tuple[Pool, ...]
    shares: tuple[tuple[float, ...], ...] = field(default=())

    @property
    def usd_per_hour(self) -> float:
        """Cost of the fleet."""
        return sum(pool.usd_per_hour for pool in self.pools)
