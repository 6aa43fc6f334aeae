"""The ladder of health: starting, ready, degraded, failed; and when a machine is cordoned for its rung.

    starting --well--> ready --unwell--> degraded --too long--> failed --well again--> ready
       |--too long-----------------------------------------------^

A machine is well when it runs, passes EC2's checks and, where engines are asked, all of its engines are
healthy. One that fails, or that EC2 is about to take away, is cordoned. A failed one that is well again
before it went is taken back: what was out of reach may have been this side of the network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from hgpu.deploy.ec2.notices import Notice
from hgpu.deploy.ec2.state import Cordon, MachineState, Rung, Step, Watched
from hgpu.deploy.ec2.world import Instance


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a machine may start, how long one that was ready may be unwell, and how long it drains."""

    starting_s: float = 1800.0
    degraded_s: float = 120.0
    drain_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of the machines now: which pass EC2's checks, which engines are ill, what is announced."""

    passing: frozenset[str]
    ill: Mapping[str, str]  # by machine: why, where an engine isn't healthy
    notices: Mapping[str, Notice]


def judged(
    machine: MachineState, found: Instance | None, seen: Seen, now: datetime, patience: Patience
) -> MachineState:
    """Return a machine's record with its rung, up where it is ready, cordoned where it can't stay."""
    if machine.step not in (Step.LAUNCHING, Step.UP, Step.LEAVING) or found is None:
        return machine
    watched = _watched(machine, found, seen, now, patience)
    machine = machine.model_copy(update={"watched": watched})
    if watched.rung is Rung.READY and machine.step is Step.LAUNCHING:
        machine = machine.model_copy(update={"step": Step.UP})
    cordon = _cordon(machine, seen.notices.get(found.id), watched, now)
    if cordon == machine.cordon:
        return machine
    step = Step.LEAVING if cordon else Step.UP
    return machine.model_copy(update={"cordon": cordon, "step": step})


def _watched(
    machine: MachineState, found: Instance, seen: Seen, now: datetime, patience: Patience
) -> Watched:
    was, why = machine.watched, _unwell(found, seen)
    if not why:
        return was if was and was.rung is Rung.READY else Watched(rung=Rung.READY, since=_text(now))
    served = machine.step is not Step.LAUNCHING
    if was is None or was.rung is Rung.READY:
        was = Watched(rung=Rung.DEGRADED if served else Rung.STARTING, since=_text(now), why=why)
    if was.rung is Rung.FAILED:
        return was
    allowed_s = patience.degraded_s if was.rung is Rung.DEGRADED else patience.starting_s
    over = now - datetime.fromisoformat(was.since) >= timedelta(seconds=allowed_s)
    if over or found.state not in ("pending", "running"):
        return Watched(rung=Rung.FAILED, since=_text(now), why=why)
    return was.model_copy(update={"why": why})


def _unwell(found: Instance, seen: Seen) -> str:
    """Say what is the matter with a machine; nothing where it is well."""
    if found.state != "running":
        return f"it is {found.state}{f': {found.reason}' if found.reason else ''}"
    if found.id not in seen.passing:
        return "it doesn't pass EC2's checks"
    return seen.ill.get(found.id, "")


def _cordon(machine: MachineState, notice: Notice | None, watched: Watched, now: datetime) -> Cordon | None:
    was = machine.cordon
    served = was.served if was else machine.step is not Step.LAUNCHING
    if notice is not None and not (was and was.notice):
        at = was.at if was else _text(now)
        why = f"EC2 takes it away: {notice.code}"
        return Cordon(why=why, at=at, until=_text(notice.until), notice=True, served=served)
    if was is not None:
        return None if watched.rung is Rung.READY and not was.notice else was
    if watched.rung is Rung.FAILED:
        return Cordon(why=watched.why, at=_text(now), served=served)
    return None


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
