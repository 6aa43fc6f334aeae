"""From what there is to what is wanted: the state that an apply writes down before it calls EC2."""

from collections.abc import Iterable, Sequence
from itertools import count

from hgpu.deploy.ec2.state import Ec2State, MachineState, Step, TemplateState
from hgpu.deploy.ec2.tags import carries, generation_of
from hgpu.deploy.ec2.wanted import WantedPool
from hgpu.deploy.ec2.world import World
from hgpu.deploy.state import Phase

# Of equal machines, those that are furthest stay.
_ORDER = (Step.UP, Step.LEAVING, Step.LAUNCHING, Step.PLANNED, Step.LOST)


def refreshed(state: Ec2State, world: World, hidden: Iterable[str] = ()) -> Ec2State:
    """Return the state as the world bears it out.

    A machine that hgpu launched without living to record it is adopted by its tags. One that is
    terminated, or not described and not among `hidden` (which EC2 doesn't list yet), is lost.
    """
    return state.with_machines(_seen(machine, world, set(hidden)) for machine in state.machines)


def strays(state: Ec2State, world: World) -> list[str]:
    """Return the living machines with the deployment's tag that the state doesn't know."""
    known = {machine.instance_id for machine in state.machines}
    return [found.id for found in world.instances if found.living and found.id not in known]


def intended(state: Ec2State, wanted: Sequence[WantedPool], plan_digest: str, world: World) -> Ec2State:
    """Return the state to reach: what stays, what takes a lost machine's place, what is new, what leaves."""
    leaving = [m for m in state.machines if m.step is Step.TERMINATING]
    rest = [m for m in state.machines if m.step is not Step.TERMINATING]
    able = [m for m in rest if m.cordon is None]
    kept: list[MachineState] = []
    short: list[WantedPool] = []
    for pool in wanted:
        mine = sorted((m for m in able if m.template == pool.template), key=_rank)[: pool.count]
        kept += [_stays(machine, pool) for machine in mine]
        short += [pool] * (pool.count - len(mine))
    generation = _generation(state, world) + 1 if short else state.generation
    taken = {m.slot for m in state.machines}
    new = [_new(pool, taken, generation) for pool in short]
    stay = {(m.slot, m.generation) for m in kept}
    out = [m for m in rest if (m.slot, m.generation) not in stay and m.step not in (Step.PLANNED, Step.LOST)]
    leaving += [m.model_copy(update={"step": Step.LEAVING}) for m in out]
    return state.model_copy(
        update={
            "plan_digest": plan_digest,
            "generation": generation,
            "phase": Phase.READY if _settled(state, kept, new, leaving, plan_digest) else Phase.STARTING,
            "regions": sorted({*state.regions, *(pool.row.region for pool in wanted)}),
            "machines": [*kept, *new, *leaving],
            "templates": _templates(state, wanted),
        }
    )


def _settled(
    state: Ec2State,
    kept: Sequence[MachineState],
    new: Sequence[MachineState],
    leaving: Sequence[MachineState],
    plan_digest: str,
) -> bool:
    same = state.phase is Phase.READY and state.plan_digest == plan_digest
    return same and not new and not leaving and all(machine.step is Step.UP for machine in kept)


def _seen(machine: MachineState, world: World, hidden: set[str]) -> MachineState:
    if machine.step in (Step.PLANNED, Step.LOST) or machine.instance_id in hidden:
        return machine
    mine = [i for i in world.instances if carries(i.tags, machine)]
    found = world.instance(machine.instance_id) or next(iter(sorted(mine, key=lambda i: not i.living)), None)
    if found is not None and found.living:
        return machine.model_copy(update={"instance_id": found.id})
    unanswered = machine.step is Step.LAUNCHING and machine.instance_id is None and found is None
    if machine.step is Step.TERMINATING or unanswered:
        return machine
    return machine.model_copy(update={"step": Step.LOST})


def _stays(machine: MachineState, pool: WantedPool) -> MachineState:
    """A lost machine's slot gets another attempt, under a token that EC2 hasn't seen."""
    if machine.step is Step.LOST:
        update = {
            "step": Step.PLANNED,
            "attempt": machine.attempt + 1,
            "instance_id": None,
            "watched": None,
        }
    elif machine.step is Step.LEAVING:
        update = {"step": Step.LAUNCHING}  # it may have been up or not: its health is looked at again
    else:
        update = {}
    same = {"pool": pool.slug, "offer": pool.row.offer, "usd_per_hour": pool.usd_per_hour}
    return machine.model_copy(update={**same, **update})


def _new(pool: WantedPool, taken: set[str], generation: int) -> MachineState:
    slot = next(name for n in count() if (name := f"{pool.slug}-{n}") not in taken)
    taken.add(slot)
    return MachineState(
        slot=slot,
        pool=pool.slug,
        offer=pool.row.offer,
        region=pool.row.region,
        instance_type=pool.instance_type,
        market=pool.row.market,
        usd_per_hour=pool.usd_per_hour,
        template=pool.template,
        generation=generation,
    )


def _generation(state: Ec2State, world: World) -> int:
    """Return the highest generation that was ever used, as far as anything tells."""
    return max([state.generation, *(generation_of(found.tags) for found in world.instances)])


def _templates(state: Ec2State, wanted: Sequence[WantedPool]) -> list[TemplateState]:
    """All that are known, and those that are wanted: an unneeded one goes when its machines are gone."""
    known = {row.name for row in state.templates}
    new = [p for p in wanted if p.template not in known]
    return [*state.templates, *(TemplateState(name=p.template, region=p.row.region) for p in new)]


def _rank(machine: MachineState) -> tuple[int, str]:
    return _ORDER.index(machine.step), machine.slot
