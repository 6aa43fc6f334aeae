"""The target `aws`: launches, watches and takes away machines on EC2, whatever happens in between."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hgpu.core.errors import InputError, UnknownName
from hgpu.deploy.driver import DeploymentStatus, Destroyed, Progress
from hgpu.deploy.ec2.aim import Plan, Reach, first_aim
from hgpu.deploy.ec2.apply import Apply, Approve, Launched, Replan
from hgpu.deploy.ec2.budget import Caps
from hgpu.deploy.ec2.clients import Clients, boto3_clients
from hgpu.deploy.ec2.destroy import take_away
from hgpu.deploy.ec2.diff import Diff
from hgpu.deploy.ec2.engines import Addresses, private_urls
from hgpu.deploy.ec2.keep import Keeper
from hgpu.deploy.ec2.options import Ec2Options, Waits, require_region
from hgpu.deploy.ec2.state import Ec2State, read_state, recorded_names
from hgpu.deploy.ec2.status import status_of
from hgpu.deploy.ec2.world import World, look
from hgpu.deploy.lock import locked
from hgpu.deploy.render.document import require_dns_label
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder


def _now() -> datetime:
    return datetime.now(UTC)


def _new_lineage() -> str:
    return secrets.token_hex(4)


@dataclass(frozen=True, slots=True)
class Ec2Driver:
    """Drives EC2. `regions` are looked into beside those of the states; the rest says how AWS is reached."""

    regions: tuple[str, ...] = ()
    waits: Waits = field(default_factory=Waits)
    clients: Callable[[], Clients] = boto3_clients
    addresses: Addresses = private_urls
    now: Callable[[], datetime] = _now
    lineage: Callable[[], str] = _new_lineage

    def diff(self, plan: Plan, root: Path, options: Ec2Options) -> Diff:
        """Compare a plan with state and world, and change nothing."""
        return first_aim(plan, root, options, self._reach()).diff

    def apply(
        self,
        plan: Plan,
        root: Path,
        options: Ec2Options,
        approve: Approve,
        replan: Replan | None,
        progress: Progress,
    ) -> Launched:
        """Make the world as the plan says: new machines first, then the old ones go.

        `approve` sees the diff before anything is changed. An offer that can't be had is planned around
        with `replan`; without it, OfferClosed is raised. Whatever fails, the same call again goes on.
        """
        return Apply(root, options, self._reach(), replan, progress).run(plan, approve)

    def keeper(
        self,
        root: Path,
        name: str,
        plans: Callable[[str], Plan],
        caps: Callable[[Plan], Caps],
        replan: Replan | None,
        progress: Progress,
    ) -> Keeper:
        """Return what keeps a deployment as its plan says. Raises UnknownName where there is none."""
        if name not in self.names(root):
            raise UnknownName("deployment on aws", name, self.names(root))
        return Keeper(root, name, self._reach(), plans, caps, replan, progress)

    def status(
        self, root: Path, name: str | None = None, include_destroyed: bool = False
    ) -> list[DeploymentStatus]:
        """Look at the deployments under `root`, or at one of them, and change nothing."""
        names = self.names(root)
        if name is not None and name not in names:
            raise UnknownName("deployment on aws", name, names)
        asked = [name] if name else [one for one in names if include_destroyed or not _is_gone(root, one)]
        if not asked:
            return []
        reach = self._reach()
        return [status_of(state_folder(root, one), reach, self.regions) for one in asked]

    def destroy(self, root: Path, name: str) -> Destroyed:
        """Take a deployment away by its state and its tags, and prove that nothing is left.

        Without a readable state, `regions` must say where to look for its tags; they are needed too where
        another state's machines carry the name.
        """
        require_dns_label("name", name)
        known = name in self.names(root)
        if not known and not self.regions:
            raise UnknownName("deployment on aws", name, self.names(root))
        clients, folder = self.clients(), state_folder(root, name)
        if not known:
            read_state(folder)  # refuses a deployment of another target
            self._require_tagged(clients, name)
        with locked(folder):
            state = self._located(_readable(folder) or Ec2State(name=name, lineage=self.lineage()))
            if not self.regions:
                _refuse_foreign(state, look(clients, state.regions, name))
            return Destroyed(name, take_away(folder, state, clients, self.waits), "machines")

    def names(self, root: Path) -> list[str]:
        """Return the names of the deployments under `root`."""
        return recorded_names(root)

    def _reach(self) -> Reach:
        return Reach(self.clients(), self.waits, self.addresses, self.now, self.lineage)

    def _located(self, state: Ec2State) -> Ec2State:
        """Return the state with all regions to look into."""
        regions = sorted({*state.regions, *map(require_region, self.regions)})
        if not regions:
            raise InputError(
                f"where '{state.name}' runs isn't known", "its state can't be read", "name its --region"
            )
        return state.model_copy(update={"regions": regions})

    def _require_tagged(self, clients: Clients, name: str) -> None:
        world = look(clients, list(map(require_region, self.regions)), name)
        if not world.templates and not any(found.living for found in world.instances):
            raise UnknownName(f"deployment in {', '.join(self.regions)}", name, [])


def _refuse_foreign(state: Ec2State, world: World) -> None:
    foreign = world.foreign(state.lineage)
    if foreign:
        raise InputError(
            f"not all of '{state.name}' is this results folder's",
            f"machines {', '.join(foreign[:5])} were launched from another one",
            "destroy it from there, or name its --region to take away all that carries the name",
        )


def _is_gone(root: Path, name: str) -> bool:
    state = _readable(state_folder(root, name))
    return state is not None and state.phase is Phase.DESTROYED


def _readable(folder: Path) -> Ec2State | None:
    try:
        return read_state(folder)
    except InputError:
        return None
