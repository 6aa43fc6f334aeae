"""A service on estimates with the pools of a plan, for tests of the control loop."""

from pathlib import Path
from typing import Any

from solvers.services import demand

from hgpu.core.offer import Market, Offer
from hgpu.runtime.control.pools import ControlledPool
from hgpu.solvers.demand import Demand

PRICES = {"L4": 0.8, "A100-80GB": 2.0}


def service(root: Path, **changes: Any) -> Demand:
    """A service that both GPU types can serve, 4 requests a second."""
    return demand(root, **changes)


def pools_of(demand: Demand, **caps: int | None) -> tuple[ControlledPool, ...]:
    """A pool of each GPU type, with a machine an engine; caps by `L4=`, `A100=`."""
    most = {"L4": caps.get("L4"), "A100-80GB": caps.get("A100")}
    return tuple(
        ControlledPool(gpu, offer, point, most[gpu])
        for gpu, offer in OFFERS.items()
        for point in demand.candidates.latency
        if point.gpu == gpu
    )


OFFERS = {
    gpu: Offer("test", f"one-{gpu}", "here", Market.ON_DEMAND, gpu, 1, price, "2026-01-01", "test")
    for gpu, price in PRICES.items()
}


def controlled(root: Path, **caps: int | None) -> tuple[Demand, tuple[ControlledPool, ...]]:
    """The service on these offers, and its pools."""
    from dataclasses import replace

    made = service(root)
    made = replace(made, service=replace(made.service, offers=tuple(OFFERS.values())))
    return made, pools_of(made, **caps)
