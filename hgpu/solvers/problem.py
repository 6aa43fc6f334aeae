"""The allocation problem: rates to serve, ways to serve them, and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hgpu.core.allocation import Allocation
from hgpu.core.offer import Market, Offer
from hgpu.core.operating_point import OperatingPoint


class Status(StrEnum):
    """What the solver says of its answer."""

    OPTIMAL = "optimal"  # proven within the gap
    FEASIBLE = "feasible"  # the time limit struck first; the bound says how far off it may be


class Unit(StrEnum):
    """What a limit counts."""

    MACHINES = "machines"
    ENGINES = "engines"


@dataclass(frozen=True, slots=True)
class Column:
    """An offer whose machines may run engines at one operating point, for one service.

    `capacity_rps` has a rate per bucket for one engine, 0 where it can't (or mustn't) serve the bucket.
    The pool carries its load with `spare_machines` of its machines lost (n+1: 1).
    """

    offer: Offer
    point: OperatingPoint
    capacity_rps: tuple[float, ...]
    service: str = ""
    spare_machines: int = 0

    @property
    def engines_per_machine(self) -> int:
        """Engines that fit on one machine."""
        return self.offer.gpu_count // self.point.tp

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from other columns; their order is the order of these."""
        return (self.service, f"{self.offer.name}@{self.offer.region}", self.point.name, str(self.point))


@dataclass(frozen=True, slots=True)
class Limit:
    """Σ weights[column] · count ≤ at_most (or ≥ at_least), with the name that users gave it.

    Counted are the machines, or the engines, of each column. A machine that several columns share is
    counted once: the columns of an offer must have the same weight per machine. What runs beside the services
    is taken off `at_most` before, and kept in `used`.
    """

    name: str
    weights: Mapping[int, float]
    at_most: float | None = None
    at_least: float | None = None
    unit: Unit = Unit.MACHINES
    used: float = 0.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Rates by bucket, the columns that may serve them, and what else must hold.

    - `preemptible_shares`: the most of each bucket that spot machines may serve; all of it where empty;
    - `running`, `change_usd_per_hour`: engines that run now, by column, and what starting or stopping
      one counts for, as if it were rent;
    - `alike`: the group of each bucket; those of a group are shared out alike (none: each on its own);
    - `budget_usd_per_hour`: serve as much of the mix as this buys (rates scale together), instead of
      serving the rates for the least money.
    """

    bucket_names: tuple[str, ...]
    rates_rps: tuple[float, ...]
    columns: tuple[Column, ...]
    limits: tuple[Limit, ...] = ()
    gap: float = 0.0
    time_limit_s: float = 60.0
    preemptible_shares: tuple[float, ...] = ()
    running: Mapping[int, int] = field(default_factory=dict)
    change_usd_per_hour: float = 0.0
    budget_usd_per_hour: float | None = None
    alike: tuple[str, ...] = ()

    @property
    def limits_spot(self) -> bool:
        """Tell whether spot machines must leave a part of some bucket to others."""
        return any(share < 1 for share in self.preemptible_shares)

    @property
    def committed_usd_per_hour(self) -> float:
        """Price of all reserved machines: it is paid whether they are used or not."""
        offers = {c.offer for c in self.columns if c.offer.market is Market.RESERVED}
        return sum(offer.usd_per_hour * (offer.available or 0) for offer in offers)


@dataclass(frozen=True, slots=True)
class Solution:
    """An allocation with the solver's own account of it.

    `served` is the part of the rates that it serves: 1, or what a budget buys. `bound_usd_per_hour` is
    a proven lower bound of the cost; with a budget, of the cost of serving that much.
    """

    allocation: Allocation
    status: Status
    bound_usd_per_hour: float
    variables: int
    constraints: int
    build_s: float
    solve_s: float
    served: float = 1.0

    @property
    def gap(self) -> float:
        """How much cheaper, at most, any allocation could be, as a part of this one's cost."""
        cost = self.allocation.usd_per_hour
        return max(0.0, (cost - self.bound_usd_per_hour) / cost) if cost else 0.0
