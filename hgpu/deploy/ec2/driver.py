"""The target `aws`: launches, watches and takes away machines on EC2, whatever happens in between."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.core.errors import HgpuError, InputError, UnknownName
from hgpu.deploy.driver import DeploymentStatus, Destroyed, Progress
from hgpu.deploy.ec2.capacity import OfferClosed, still_closed
from hgpu.deploy.ec2.clients import Clients, boto3_clients
from hgpu.deploy.ec2.destroy import take_away
from hgpu.deploy.ec2.diff import Diff, diff_of
from hgpu.deploy.ec2.engines import Addresses, Answer, private_urls, proven
from hgpu.deploy.ec2.intent import intended, refreshed
from hgpu.deploy.ec2.options import Ec2Options, Waits, require_region
from hgpu.deploy.ec2.rollout import Rollout
from hgpu.deploy.ec2.sight import hidden
from hgpu.deploy.ec2.state import ClosedOffer, Ec2State, Step, read_state, recorded_names
from hgpu.deploy.ec2.status import status_of
from hgpu.deploy.ec2.wanted import WantedPool, wanted_pools
from hgpu.deploy.ec2.world import World, look
from hgpu.deploy.launch import served_name
from hgpu.deploy.lock import locked
from hgpu.deploy.render.document import require_dns_label
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder

Plan = Artifact[PlanPayload]
Approve = Callable[[Diff], None]  # raises where the user doesn't want it
# From a plan, and what is closed with how many machines of it run already, to a plan around that.
Replan = Callable[[Plan, Sequence[tuple[ClosedOffer, int]]], Plan]


@dataclass(frozen=True, slots=True)
class Launched:
    """A deployment whose machines are up; `answers` is empty where engines can't be asked from here."""

    state: Ec2State
    plan: Plan
    pools: tuple[WantedPool, ...]
    answers: tuple[Answer, ...]
    changed: bool


@dataclass(frozen=True, slots=True)
class _Sight:
    """A deployment as it is, what to make of it, and what that changes."""

    recorded: Ec2State
    pools: list[WantedPool]
    target: Ec2State
    diff: Diff


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Ec2Driver:
    """Drives EC2. `regions` are looked into beside those of the states; the rest says how AWS is reached."""

    regions: tuple[str, ...] = ()
    waits: Waits = field(default_factory=Waits)
    clients: Callable[[], Clients] = boto3_clients
    addresses: Addresses = private_urls
    now: Callable[[], datetime] = _now

    def diff(self, plan: Plan, root: Path, options: Ec2Options) -> Diff:
        """Compare a plan with state and world, and change nothing."""
        return self._sight(plan, root, options, self.clients()).diff

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
        clients = self.clients()
        folder = state_folder(root, options.render.name)
        with locked(folder):
            sight = self._sight(plan, root, options, clients)
            if not sight.diff.empty:
                approve(sight.diff)
            rollout = Rollout(folder, sight.recorded, clients, self.waits, options.subnet, self.now, progress)
            rollout.aim(sight.target, sight.pools)
            try:
                plan = self._made(rollout, plan, root, options, replan)
                answers = self._answers(rollout, plan, options)
            except BaseException:
                self._failed(rollout, options, progress)
                raise
            rollout.release()
            rollout.settle(Phase.READY)
            changed = not sight.diff.empty or plan.digest != sight.recorded.plan_digest
            return Launched(rollout.state, plan, tuple(rollout.pools), tuple(answers), changed)

    def status(
        self, root: Path, name: str | None = None, include_destroyed: bool = False
    ) -> list[DeploymentStatus]:
        """Look at the deployments under `root`, or at one of them, and change nothing."""
        names = self.names(root)
        if name is not None and name not in names:
            raise UnknownName("deployment on aws", name, names)
        asked = [name] if name else [one for one in names if include_destroyed or not self._gone(root, one)]
        clients = self.clients() if asked else None
        return [
            status_of(state_folder(root, one), clients, self.regions, self.addresses)
            for one in asked
            if clients is not None
        ]

    def destroy(self, root: Path, name: str) -> Destroyed:
        """Take a deployment away by its state and its tags, and prove that nothing is left.

        Without a readable state, `regions` must say where to look for its tags.
        """
        require_dns_label("name", name)
        known = name in self.names(root)
        if not known and not self.regions:
            raise UnknownName("deployment on aws", name, self.names(root))
        clients = self.clients()
        folder = state_folder(root, name)
        if not known:
            read_state(folder)  # refuses a deployment of another target
            self._require_tagged(clients, name)
        with locked(folder):
            state = self._readable(folder) or Ec2State(name=name)
            regions = sorted({*state.regions, *map(require_region, self.regions)})
            if not regions and state.phase is not Phase.DESTROYED:
                raise InputError(
                    f"where '{name}' runs isn't known", "its state can't be read", "name its --region"
                )
            state = state.model_copy(update={"regions": regions})
            return Destroyed(name, take_away(folder, state, clients, self.waits), "machines")

    def names(self, root: Path) -> list[str]:
        """Return the names of the deployments under `root`."""
        return recorded_names(root)

    def _sight(self, plan: Plan, root: Path, options: Ec2Options, clients: Clients) -> _Sight:
        """Look at state and world, and decide what to make of them."""
        name = options.render.name
        pools = wanted_pools(plan.payload, options)
        recorded = read_state(state_folder(root, name)) or Ec2State(name=name, phase=Phase.DESTROYED)
        regions = sorted({*recorded.regions, *(pool.row.region for pool in pools)})
        world = look(clients, regions, name)
        _refuse_foreign(recorded, world)
        state = refreshed(recorded, world, hidden(recorded, world, clients, self.waits))
        target = self._target(state, pools, plan, options, world)
        return _Sight(recorded, pools, target, diff_of(state, target, world))

    def _target(
        self, state: Ec2State, pools: list[WantedPool], plan: Plan, options: Ec2Options, world: World
    ) -> Ec2State:
        target = intended(state, pools, plan.digest, world)
        return target.model_copy(
            update={
                "closed": still_closed(target.closed, self.now()),
                "private_addresses": options.private_addresses,
            }
        )

    def _made(
        self, rollout: Rollout, plan: Plan, root: Path, options: Ec2Options, replan: Replan | None
    ) -> Plan:
        """Bring the machines up; where an offer is closed, go on with a plan around it. Return the plan."""
        asked = plan
        while True:
            try:
                rollout.make()
                return plan
            except OfferClosed as error:
                known = [row for row in rollout.state.closed if not _same_offer(row, error.closed)]
                closed = [*known, error.closed]
                rollout.save(rollout.state.model_copy(update={"closed": closed}))
                if replan is None:
                    raise
                rollout.progress(f"{error.what}: {error.closed.reason}; planning around it")
                plan = replan(asked, [(row, _held(rollout.state, row)) for row in closed])
                self._retarget(rollout, plan, options)

    def _retarget(self, rollout: Rollout, plan: Plan, options: Ec2Options) -> None:
        """Aim a rollout at another plan; what it launched already stays where that plan wants it."""
        pools = wanted_pools(plan.payload, options)
        regions = sorted({*rollout.state.regions, *(pool.row.region for pool in pools)})
        world = look(rollout.clients, regions, rollout.state.name)
        rollout.aim(self._target(rollout.state, pools, plan, options, world), pools)

    def _answers(self, rollout: Rollout, plan: Plan, options: Ec2Options) -> list[Answer]:
        """Ask the engines, where this machine is inside their network."""
        if not options.private_addresses:
            return []
        world = look(rollout.clients, rollout.state.regions, rollout.state.name)
        waits, model = self.waits, served_name(plan.payload)
        rollout.progress("asking the engines at their private addresses")
        return proven(
            rollout.state, rollout.pools, world, self.addresses, model, waits.health_s, waits.poll_s
        )

    def _failed(self, rollout: Rollout, options: Ec2Options, progress: Progress) -> None:
        """Take down what was launched; the error that led here must not be lost to another one."""
        try:
            rollout.fail(options.keep_on_failure)
        except HgpuError as error:
            progress(f"the machines of this deploy may still run: {error}")
            progress(f"`hgpu destroy {rollout.state.name} --target aws` takes them down")

    def _gone(self, root: Path, name: str) -> bool:
        state = self._readable(state_folder(root, name))
        return state is not None and state.phase is Phase.DESTROYED

    def _readable(self, folder: Path) -> Ec2State | None:
        try:
            return read_state(folder)
        except InputError:
            return None

    def _require_tagged(self, clients: Clients, name: str) -> None:
        world = look(clients, list(map(require_region, self.regions)), name)
        if not world.templates and not any(found.living for found in world.instances):
            raise UnknownName(f"deployment in {', '.join(self.regions)}", name, [])


def _same_offer(one: ClosedOffer, other: ClosedOffer) -> bool:
    return (one.offer, one.region) == (other.offer, other.region)


def _held(state: Ec2State, closed: ClosedOffer) -> int:
    """Return how many machines of a closed offer the deployment has already."""
    living = state.at(Step.LAUNCHING, Step.UP, Step.LEAVING)
    mine = [m for m in living if (m.offer, m.region) == (closed.offer, closed.region)]
    return sum(machine.instance_id is not None for machine in mine)


def _refuse_foreign(state: Ec2State, world: World) -> None:
    """Machines that no state here stands for are of somebody else's hgpu, or of a state that was lost."""
    living = [found.id for found in world.instances if found.living]
    if living and state.phase is Phase.DESTROYED:
        raise InputError(
            f"a deployment '{state.name}' runs that this results folder knows nothing of",
            f"machines {', '.join(living[:5])} carry its tag",
            "use the --results folder that it was deployed from, another --name, or destroy it with --region",
        )
