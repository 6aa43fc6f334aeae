"""The answer: how many of what, and who serves which requests."""

from dataclasses import dataclass, field

from hgpu.core.offer import Offer
from hgpu.core.operating_point import OperatingPoint


@dataclass(frozen=True, slots=True)
class Pool:
    """Engines at one operating point on machines of one offer.

    `machines` hold them, and may hold engines of other pools too: `usd_per_hour` is this pool's part
    of their price, by GPUs in use. `load_engines` is the work that it carries, in fully used engines.
    """

    offer: Offer
    point: OperatingPoint
    machines: int
    engines: int
    load_engines: float
    usd_per_hour: float
    service: str = ""

    @property
    def utilization(self) -> float:
        """Carried work as a part of what the pool can carry."""
        return self.load_engines / self.engines


@dataclass(frozen=True, slots=True)
class Rental:
    """Machines of one offer for one service."""

    offer: Offer
    machines: int
    service: str = ""


@dataclass(frozen=True, slots=True)
class Allocation:
    """Pools, the share of each bucket (row) that each pool (column) serves, and the machines.

    `idle_usd_per_hour` is the price of reserved machines that are paid for and not used.
    """

    pools: tuple[Pool, ...]
    shares: tuple[tuple[float, ...], ...] = field(default=())
    rentals: tuple[Rental, ...] = field(default=())
    idle_usd_per_hour: float = 0.0

    @property
    def usd_per_hour(self) -> float:
        """Cost of the fleet."""
        rented = sum(rental.machines * rental.offer.usd_per_hour for rental in self.rentals)
        return rented + self.idle_usd_per_hour
