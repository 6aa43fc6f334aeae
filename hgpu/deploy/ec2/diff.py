"""What an apply would change, and what that costs: shown before anything is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hgpu.deploy.ec2.intent import strays
from hgpu.deploy.ec2.state import Ec2State, MachineState, Step, key_of
from hgpu.deploy.ec2.world import World


class Action(StrEnum):
    """What happens to a machine."""

    KEEP = "keep"
    LAUNCH = "launch"
    REPLACE = "replace"  # it was lost: another one in its slot
    FINISH = "finish"  # launched before, not yet proven healthy
    TERMINATE = "terminate"


@dataclass(frozen=True, slots=True)
class Change:
    """One machine and what happens to it; `usd_per_hour` is the plan's price of it."""

    action: Action
    slot: str
    offer: str
    region: str
    usd_per_hour: float
    instance_id: str | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Diff:
    """All changes, and the cost per hour before, after, and while old and new machines both run."""

    name: str
    plan_digest: str
    changes: tuple[Change, ...]
    before_usd_per_hour: float
    after_usd_per_hour: float
    peak_usd_per_hour: float
    price_date: str

    @property
    def empty(self) -> bool:
        """Whether all stays as it is."""
        return all(change.action is Action.KEEP for change in self.changes)

    def counted(self, *actions: Action) -> int:
        """Return how many machines such actions meet."""
        return sum(change.action in actions for change in self.changes)


def diff_of(state: Ec2State, target: Ec2State, world: World, price_date: str) -> Diff:
    """Compare a refreshed state with the one to reach, at prices of a date."""
    running = [m for m in state.machines if m.instance_id and m.step is not Step.LOST]
    staying = [m for m in target.machines if m.step not in (Step.LEAVING, Step.TERMINATING)]
    new = [m for m in staying if m.instance_id is None]
    unknown = [
        Change(
            Action.TERMINATE,
            "-",
            "-",
            "-",
            0.0,
            stray,
            "it has the deployment's tag, and the state doesn't know it",
        )
        for stray in strays(state, world)
    ]
    before = _cost(running)
    return Diff(
        name=target.name,
        plan_digest=target.plan_digest,
        changes=(*(_change(machine, state) for machine in target.machines), *unknown),
        before_usd_per_hour=before,
        after_usd_per_hour=_cost(staying),
        peak_usd_per_hour=before + _cost(new),
        price_date=price_date,
    )


def _change(machine: MachineState, state: Ec2State) -> Change:
    was = next((m for m in state.machines if key_of(m) == key_of(machine)), None)
    why = ""
    if machine.step is Step.UP:
        action = Action.KEEP
    elif machine.step in (Step.LEAVING, Step.TERMINATING):
        cordon = machine.cordon
        action = Action.TERMINATE
        why = f"it is cordoned: {cordon.why}" if cordon else "the plan doesn't want it"
    elif was is not None and was.step is Step.LOST:
        action, why = Action.REPLACE, f"{was.instance_id or 'its machine'} is gone"
    elif machine.step is Step.PLANNED:
        action = Action.LAUNCH
    else:
        action, why = Action.FINISH, "an earlier deploy ended before it was proven healthy"
    return Change(
        action, machine.slot, machine.offer, machine.region, machine.usd_per_hour, machine.instance_id, why
    )


def _cost(machines: Sequence[MachineState]) -> float:
    return sum(machine.usd_per_hour for machine in machines)
