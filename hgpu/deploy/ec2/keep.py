"""Keeping a deployment on EC2 as its plan says: machines that fail or are taken away get replacements.

One pass looks once, writes down what it makes of that, and asks EC2 for what is missing; it waits for nothing
but the calls themselves. So passes may end anywhere: the next one goes on from state and world, as a deploy
does. Whatever the plan wants differently is left to `hgpu deploy`, which shows it first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hgpu.core.errors import HgpuError, Infeasible, InputError
from hgpu.deploy.driver import Progress
from hgpu.deploy.ec2.aim import Plan, Reach, refuse_foreign
from hgpu.deploy.ec2.apply import Replan, held
from hgpu.deploy.ec2.budget import Caps, limited, spent
from hgpu.deploy.ec2.capacity import OfferClosed, closed_for, still_closed
from hgpu.deploy.ec2.endpoints import endpoints_of, write_endpoints
from hgpu.deploy.ec2.intent import intended, refreshed
from hgpu.deploy.ec2.ladder import Patience, judged
from hgpu.deploy.ec2.observe import observed
from hgpu.deploy.ec2.options import Ec2Options
from hgpu.deploy.ec2.retire import due, finish, retire, short_of, sweep
from hgpu.deploy.ec2.rollout import Rollout
from hgpu.deploy.ec2.sight import hidden
from hgpu.deploy.ec2.state import Ec2State, MachineState, Step, key_of, read_state
from hgpu.deploy.ec2.wanted import WantedPool, wanted_pools
from hgpu.deploy.ec2.world import World, look
from hgpu.deploy.lock import locked
from hgpu.deploy.render.document import RenderOptions
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder

AN_HOUR = 3


@dataclass(slots=True)
class Keeper:
    """Keeps one deployment. `plans` finds a plan by digest, `caps` how many machines its offers have."""

    root: Path
    name: str
    reach: Reach
    plans: Callable[[str], Plan]
    caps: Callable[[Plan], Caps]
    replan: Replan | None
    progress: Progress
    patience: Patience = field(default_factory=Patience)
    an_hour: int = AN_HOUR
    said: set[str] = field(default_factory=set)  # by the last pass: what lasts is told once
    vain: set[frozenset[str]] = field(default_factory=set)  # closures that no plan was found around

    def run(self, wait: Callable[[], object]) -> None:
        """Make a pass, `wait`, and so on until the deployment is destroyed.

        What the first pass refuses is raised; later, what stands in the way is told, and tried again.
        """
        refused: tuple[type[HgpuError], ...] = (InputError,)
        while True:
            try:
                if self.look().phase in (Phase.DESTROYING, Phase.DESTROYED):
                    return
            except HgpuError as error:
                if isinstance(error, refused):
                    raise
                self._once(str(error), set())
            refused = ()
            wait()

    def look(self) -> Ec2State:
        """Make one pass under the deployment's lock, and return the state that it leaves.

        Raises HgpuError where another hgpu works on it, or AWS refuses; InputError where it can't be kept.
        """
        folder = state_folder(self.root, self.name)
        with locked(folder, brief=True):
            state = read_state(folder)
            if state is None:
                raise InputError(f"no deployment '{self.name}' on aws", "it has no state", "deploy it first")
            if state.phase in (Phase.DESTROYING, Phase.DESTROYED):
                return state
            if state.phase is Phase.DEGRADED:
                raise HgpuError(
                    f"the last deploy of '{self.name}' failed",
                    "what it left may not be what you want",
                    "deploy again, or destroy it",
                )
            return self._pass(folder, state)

    def _pass(self, folder: Path, state: Ec2State) -> Ec2State:
        plan = self.plans(state.plan_digest)
        pools = wanted_pools(plan.payload, _options(state, plan))
        _require_same(state, pools)
        reach, now = self.reach, self.reach.now()
        world = look(reach.clients, state.regions, state.name)
        refuse_foreign(state, world)
        subnet = state.chosen.subnet if state.chosen else None
        rollout = Rollout(folder, state, reach, subnet, self.progress)
        finish(rollout, world)
        state = rollout.state
        seen_state = refreshed(state, world, hidden(state, world, reach.clients, reach.waits))
        engines = {pool.template: pool.engines for pool in pools}
        seen = observed(seen_state, world, reach, engines)
        better = seen_state.with_machines(
            judged(m, world.instance(m.instance_id), seen, now, self.patience) for m in seen_state.machines
        )
        self._aim(rollout, better, plan, world)
        told = self._tell(state, better, rollout)
        # Before what may fail: a cordoned machine gets no new requests whatever becomes of its replacement.
        write_endpoints(folder, endpoints_of(rollout.state, world, engines, reach.addresses))
        self._launch(rollout, plan)
        leaving = due(rollout.state, rollout.pools, self.caps(plan), now, self.patience)
        retire(rollout, leaving, world)
        sweep(rollout, world)
        self._settle(rollout)
        write_endpoints(folder, endpoints_of(rollout.state, world, engines, reach.addresses))
        self.said = told
        return rollout.state

    def _aim(self, rollout: Rollout, state: Ec2State, plan: Plan, world: World) -> None:
        """Write down what to reach: what stays, what goes, and the replacements that may be launched."""
        now = self.reach.now()
        rollout.pools = wanted_pools(plan.payload, _options(state, plan))
        target = intended(state, rollout.pools, plan.digest, world)
        target = limited(state, target, self.an_hour, self.caps(plan), now)
        target = target.model_copy(update={"closed": still_closed(state.closed, now)})
        if target != rollout.state:
            rollout.save(target)

    def _launch(self, rollout: Rollout, plan: Plan) -> None:
        """Launch what is planned; where an offer is closed, go on with a plan around it."""
        while waiting := [m for m in rollout.state.at(Step.PLANNED, Step.LAUNCHING) if not m.instance_id]:
            if self.replan and any(closed_for(m, rollout.state.closed) for m in waiting):
                plan = self._around(rollout, plan, self.replan)
            open_ones = [m for m in _unlaunched(rollout) if not closed_for(m, rollout.state.closed)]
            if not open_ones:
                return
            rollout.make_templates()
            try:
                for machine in open_ones:
                    rollout.launch(machine)
            except OfferClosed as error:
                rollout.close(error.closed)
                self.progress(f"{error.what}: {error.closed.reason}")

    def _around(self, rollout: Rollout, plan: Plan, replan: Replan) -> Plan:
        """Aim at a plan around what is closed; where there is none, what is closed is waited for."""
        state = rollout.state
        closures = frozenset(f"{row.offer} {row.region} {row.until}" for row in state.closed)
        if closures in self.vain:
            return plan
        try:
            new = replan(plan, [(row, held(state, row)) for row in state.closed])
        except Infeasible as error:
            self.vain.add(closures)
            self.progress(f"{error}; waiting until the offer is open again")
            return plan
        self._aim(rollout, state, new, look(self.reach.clients, state.regions, state.name))
        return new

    def _settle(self, rollout: Rollout) -> None:
        """Record whether all is as wanted; then templates that nothing runs from go."""
        state, going = rollout.state, rollout.state.at(Step.LEAVING, Step.TERMINATING)
        waiting = state.at(Step.PLANNED, Step.LAUNCHING, Step.LOST)
        whole = not going and not waiting and not short_of(state, rollout.pools)
        if whole and {row.name for row in state.templates} > {pool.template for pool in rollout.pools}:
            rollout.drop_templates()
        rollout.settle(Phase.READY if whole else Phase.STARTING)

    def _tell(self, before: Ec2State, after: Ec2State, rollout: Rollout) -> set[str]:
        """Say what changed, and once what lasts; return what lasts."""
        was = {key_of(machine): machine for machine in before.machines}
        for machine in after.machines:
            for line in _news(was[key_of(machine)], machine):
                self.progress(f"{machine.slot} ({machine.instance_id}): {line}")
        told: set[str] = set()
        missing = sum(pool.count for pool in rollout.pools) - sum(
            machine.cordon is None and machine.step in (Step.PLANNED, Step.LAUNCHING, Step.UP)
            for machine in rollout.state.machines
        )
        if missing > 0:
            used = len(spent(rollout.state, self.reach.now()))
            self._once(
                f"{missing} replacements are held back: {used} of {self.an_hour} an hour are launched, "
                "and offers have caps",
                told,
            )
        return told

    def _once(self, text: str, told: set[str]) -> None:
        told.add(text)
        if text not in self.said:
            self.progress(text)
        self.said = self.said | told


def _unlaunched(rollout: Rollout) -> list[MachineState]:
    return [m for m in rollout.state.at(Step.PLANNED, Step.LAUNCHING) if m.instance_id is None]


def _news(was: MachineState, now: MachineState) -> list[str]:
    """Say what has become of a machine since the last pass."""
    lines = []
    if now.step is Step.LOST and was.step is not Step.LOST:
        lines.append("is gone")
    rungs = tuple(one.watched.rung if one.watched else None for one in (was, now))
    if now.watched and rungs[0] is not rungs[1]:
        lines.append(f"{now.watched.rung}{f': {now.watched.why}' if now.watched.why else ''}")
    if now.cordon and now.cordon != was.cordon:
        lines.append(f"cordoned: {now.cordon.why}")
    if was.cordon and not now.cordon:
        lines.append("is well again, and taken back")
    return lines


def _options(state: Ec2State, plan: Plan) -> Ec2Options:
    """Return how the deployment's machines were launched, so that new ones are alike."""
    chosen = state.chosen
    if chosen is None:
        raise InputError(
            f"how machines of '{state.name}' are launched isn't known",
            "its state is of an older hgpu",
            "deploy again: that writes it down",
        )
    render = RenderOptions(state.name, plan.short, image=chosen.image, secret=chosen.secret)
    groups = tuple(chosen.security_groups)
    return Ec2Options(render, groups, chosen.subnet, private_addresses=state.private_addresses)


def _require_same(state: Ec2State, pools: Sequence[WantedPool]) -> None:
    """Refuse to roll out: this hgpu may render other machines than the one that deployed."""
    known = {row.name for row in state.templates}
    other = [pool.slug for pool in pools if pool.template not in known]
    if other:
        raise InputError(
            f"this hgpu would launch other machines of {', '.join(other)} than those that run",
            "they are rendered differently now",
            f"look at `hgpu deploy {state.plan_digest[:12]} --target aws --name {state.name} --diff` first",
        )
