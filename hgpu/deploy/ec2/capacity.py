"""Offers that can't be had for a while: which of EC2's errors say so, and for how long they are believed."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from hgpu.core.errors import Infeasible
from hgpu.deploy.ec2.clients import code_of, message_of
from hgpu.deploy.ec2.state import ClosedOffer, MachineState

# Somebody else's machines fill the data centre: that passes.
FULL = (
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientCapacity",
    "SpotMaxPriceTooLow",
)
# The account may not have more, or the zone has no such machines: that lasts until somebody changes it.
BARRED = (
    "MaxSpotInstanceCountExceeded",
    "VcpuLimitExceeded",
    "InstanceLimitExceeded",
    "Unsupported",
    "UnsupportedOperation",
)
FULL_FOR = timedelta(minutes=30)
BARRED_FOR = timedelta(hours=24)


class OfferClosed(Infeasible):
    """An offer can't be had now."""

    def __init__(self, closed: ClosedOffer) -> None:
        super().__init__(
            f"{closed.offer} can't be had in {closed.region}",
            f"{closed.reason}; not asked for again until {closed.until}",
            "deploy again then, or plan without this offer (without --no-replan, hgpu plans anew by itself)",
        )
        self.closed = closed


def closed_by(error: Any, machine: MachineState, now: datetime) -> ClosedOffer | None:
    """Return the offer that a failed launch closes; None where the error says nothing of supply."""
    code = code_of(error)
    if code not in (*FULL, *BARRED):
        return None
    until = now + (FULL_FOR if code in FULL else BARRED_FOR)
    return ClosedOffer(
        offer=machine.offer,
        region=machine.region,
        until=until.isoformat(timespec="seconds"),
        reason=f"{code}: {message_of(error)}",
    )


def still_closed(closed: Sequence[ClosedOffer], now: datetime) -> list[ClosedOffer]:
    """Return what is closed at a time."""
    return [row for row in closed if datetime.fromisoformat(row.until) > now]


def closed_for(machine: MachineState, closed: Sequence[ClosedOffer]) -> ClosedOffer | None:
    """Return what closes a machine's offer, if anything does."""
    mine = (machine.offer, machine.region)
    return next((row for row in closed if (row.offer, row.region) == mine), None)
