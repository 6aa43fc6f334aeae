"""Which machines go now, and their going: asked of EC2 without waiting, looked at again by the next pass."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from hgpu.deploy.ec2.budget import Caps, full
from hgpu.deploy.ec2.clients import told
from hgpu.deploy.ec2.intent import strays
from hgpu.deploy.ec2.ladder import Patience
from hgpu.deploy.ec2.rollout import Rollout
from hgpu.deploy.ec2.state import Ec2State, MachineState, Rung, Step
from hgpu.deploy.ec2.wanted import WantedPool
from hgpu.deploy.ec2.world import World


def short_of(state: Ec2State, pools: Sequence[WantedPool]) -> set[str]:
    """Return the templates of which fewer machines are up than the plan wants."""
    up = Counter(machine.template for machine in state.at(Step.UP))
    return {pool.template for pool in pools if up[pool.template] < pool.count}


def due(
    state: Ec2State, pools: Sequence[WantedPool], caps: Caps, now: datetime, patience: Patience
) -> list[MachineState]:
    """Return the machines that go now.

    One that no plan wants goes when all that are wanted are up. A cordoned one goes when its pool is whole
    without it and it has had time to drain, and at once where its notice is up, where it never was ready,
    and where it failed and its offer's cap lets no other one start beside it.
    """
    short, wanted = short_of(state, pools), {pool.template for pool in pools}

    def goes(machine: MachineState) -> bool:
        cordon = machine.cordon
        whole = machine.template not in short if machine.template in wanted else not short
        if cordon is None:
            return not short
        if not cordon.served or (cordon.until and now >= datetime.fromisoformat(cordon.until)):
            return True
        rung = machine.watched.rung if machine.watched else Rung.FAILED
        if rung is Rung.FAILED and full(state.machines, machine, caps):
            return True
        since = now - datetime.fromisoformat(cordon.at)
        return whole and (rung is Rung.FAILED or since >= timedelta(seconds=patience.drain_s))

    return [machine for machine in state.at(Step.LEAVING) if goes(machine)]


def retire(rollout: Rollout, machines: Sequence[MachineState], world: World) -> None:
    """Write down that machines go, and ask EC2 to terminate them; those without an id are looked for."""
    named = [m for m in machines if world.instance(m.instance_id) is not None]
    rollout.terminate([m for m in machines if m.instance_id is None])
    if not named:
        return
    rollout.save(rollout.state.with_machines(m.model_copy(update={"step": Step.TERMINATING}) for m in named))
    rollout.progress(f"terminating {', '.join(f'{m.slot} ({m.instance_id})' for m in named)}")
    _terminate(rollout, {str(m.instance_id): m.region for m in named})


def finish(rollout: Rollout, world: World) -> None:
    """Forget machines that are gone, and ask again for those that EC2 hasn't begun to take away."""
    going = rollout.state.at(Step.TERMINATING)
    rollout.terminate([m for m in going if m.instance_id is None])
    seen = {m.instance_id: world.instance(m.instance_id) for m in going if m.instance_id}
    gone = [m for m in going if m.instance_id and not _there(m, world)]
    if gone:
        rollout.save(rollout.state.without_machines(gone))
    _terminate(rollout, {i.id: i.region for i in seen.values() if i is not None and i.living})


def sweep(rollout: Rollout, world: World) -> None:
    """Terminate machines with the deployment's tag that the state doesn't know."""
    unknown = set(strays(rollout.state, world))
    if unknown:
        rollout.progress(f"terminating {', '.join(sorted(unknown))}, which the state doesn't know")
        _terminate(rollout, {i.id: i.region for i in world.instances if i.id in unknown})


def _there(machine: MachineState, world: World) -> bool:
    found = world.instance(machine.instance_id)
    return found is not None and found.state != "terminated"


def _terminate(rollout: Rollout, regions: dict[str, str]) -> None:
    for region in sorted(set(regions.values())):
        ids = sorted(ident for ident, where in regions.items() if where == region)
        with told():
            rollout.reach.clients(region).terminate_instances(InstanceIds=ids)
