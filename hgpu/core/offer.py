"""Things that can be rented."""

from dataclasses import dataclass
from enum import StrEnum


class Market(StrEnum):
    """How a machine is paid for."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    RESERVED = "reserved"
    OWNED = "owned"


@dataclass(frozen=True, slots=True)
class Offer:
    """One instance type in one region and market, with its price for the whole machine.

    `available` caps how many can be had; None means no cap is known. `host_memory_gib` is the memory of the
    whole machine beside its GPUs', None where it isn't known.
    """

    cloud: str
    instance_type: str
    region: str
    market: Market
    gpu: str
    gpu_count: int
    usd_per_hour: float
    price_date: str
    source: str
    available: int | None = None
    host_memory_gib: float | None = None

    @property
    def name(self) -> str:
        """`cloud/instance_type`, with the market where it isn't on-demand."""
        base = f"{self.cloud}/{self.instance_type}"
        return base if self.market is Market.ON_DEMAND else f"{base}:{self.market}"

    @property
    def usd_per_gpu_hour(self) -> float:
        """Price of one of the machine's GPUs."""
        return self.usd_per_hour / self.gpu_count
