"""Where an apply stands and where it aims: state and world looked at, and what a plan makes of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import InputError
from hgpu.deploy.ec2.capacity import still_closed
from hgpu.deploy.ec2.clients import Clients
from hgpu.deploy.ec2.diff import Diff, diff_of
from hgpu.deploy.ec2.engines import Addresses
from hgpu.deploy.ec2.intent import intended, refreshed
from hgpu.deploy.ec2.options import Ec2Options, Waits
from hgpu.deploy.ec2.sight import hidden
from hgpu.deploy.ec2.state import Ec2State, read_state
from hgpu.deploy.ec2.wanted import WantedPool, wanted_pools
from hgpu.deploy.ec2.world import World, look
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder

Plan = Artifact[PlanPayload]


@dataclass(frozen=True, slots=True)
class Reach:
    """How AWS and its engines are reached, and how long is waited for them."""

    clients: Clients
    waits: Waits
    addresses: Addresses
    now: Callable[[], datetime]
    lineage: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Aim:
    """The state on disk, the one to reach with the pools that it is for, and what that changes."""

    recorded: Ec2State
    target: Ec2State
    pools: Sequence[WantedPool]
    diff: Diff


def first_aim(plan: Plan, root: Path, options: Ec2Options, reach: Reach) -> Aim:
    """Look at state and world, wait for what EC2 doesn't list yet, and decide what to make of them.

    Raises InputError where machines run under this name that no state here stands for.
    """
    name = options.render.name
    pools = wanted_pools(plan.payload, options)
    recorded = read_state(state_folder(root, name)) or Ec2State(
        name=name, lineage=reach.lineage(), phase=Phase.DESTROYED
    )
    world = look(reach.clients, _regions(recorded, pools), name)
    refuse_foreign(recorded, world)
    state = refreshed(recorded, world, hidden(recorded, world, reach.clients, reach.waits))
    return _aim(recorded, state, pools, plan, options, world, reach)


def next_aim(state: Ec2State, plan: Plan, options: Ec2Options, reach: Reach) -> Aim:
    """Aim at another plan in the middle of an apply: what was launched already stays where it is wanted."""
    pools = wanted_pools(plan.payload, options)
    world = look(reach.clients, _regions(state, pools), state.name)
    return _aim(state, state, pools, plan, options, world, reach)


def _aim(
    recorded: Ec2State,
    state: Ec2State,
    pools: Sequence[WantedPool],
    plan: Plan,
    options: Ec2Options,
    world: World,
    reach: Reach,
) -> Aim:
    target = intended(state, pools, plan.digest, world).model_copy(
        update={
            "closed": still_closed(state.closed, reach.now()),
            "private_addresses": options.private_addresses,
            "chosen": options.chosen,
        }
    )
    price_date = min(pool.row.price_date for pool in pools)
    return Aim(recorded, target, pools, diff_of(state, target, world, price_date))


def _regions(state: Ec2State, pools: Sequence[WantedPool]) -> list[str]:
    return sorted({*state.regions, *(pool.row.region for pool in pools)})


def refuse_foreign(state: Ec2State, world: World) -> None:
    """Machines that another state launched are of somebody else's hgpu, or of a state that was lost."""
    living = world.foreign(state.lineage)
    if living:
        raise InputError(
            f"a deployment '{state.name}' runs that this results folder knows nothing of",
            f"machines {', '.join(living[:5])} carry its name",
            "use the --results folder that it was deployed from, another --name, or destroy it with --region",
        )
