"""How many replacements a supervisor may launch: so many an hour, so that a broken image can't burn money.

Each is written down with the intent to launch it, before the call: a crash spends no more than was allowed.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from hgpu.deploy.ec2.state import Ec2State, MachineState, Step, key_of

HOUR = timedelta(hours=1)
Caps = Mapping[tuple[str, str], int]  # by offer and region: the most machines that may be had at a time


def limited(state: Ec2State, target: Ec2State, an_hour: int, caps: Caps, now: datetime) -> Ec2State:
    """Return the target with no more new machines than may be launched now, and with those written down.

    New is what wasn't planned before. What is held back stays lost, or out: the next pass asks again. What
    was planned, never launched and isn't wanted any more (its offer was closed) is not counted.
    """
    before = {key_of(machine): machine for machine in state.machines}
    new = [m for m in target.at(Step.PLANNED) if not _was_planned(before.get(key_of(m)))]
    keys = {key_of(machine) for machine in new}
    admitted = [m for m in target.machines if key_of(m) not in keys]
    aimed = {key_of(machine) for machine in target.machines}
    dropped = sum(key_of(machine) not in aimed for machine in state.at(Step.PLANNED))
    recent = spent(state, now)
    recent = recent[: max(0, len(recent) - dropped)]
    for machine in new:
        if len(recent) < an_hour and not full(admitted, machine, caps):
            admitted.append(machine)
            recent.append(now.isoformat(timespec="seconds"))
        elif was := before.get(key_of(machine)):
            admitted.append(was)
    chosen = {key_of(machine): machine for machine in admitted}
    machines = [chosen[key_of(m)] for m in target.machines if key_of(m) in chosen]
    generation = max([state.generation, *(m.generation for m in machines)])
    return target.model_copy(update={"machines": machines, "generation": generation, "replaced": recent})


def spent(state: Ec2State, now: datetime) -> list[str]:
    """Return when replacements were launched within the last hour."""
    return [at for at in state.replaced if now - datetime.fromisoformat(at) < HOUR]


def full(machines: Iterable[MachineState], like: MachineState, caps: Caps) -> bool:
    """Tell whether an offer has as many machines, those that leave among them, as may be had."""
    most = caps.get((like.offer, like.region))
    mine = [m for m in machines if (m.offer, m.region) == (like.offer, like.region)]
    return most is not None and sum(m.step is not Step.LOST for m in mine) >= most


def _was_planned(was: MachineState | None) -> bool:
    return was is not None and was.step is Step.PLANNED
