"""Make before break: new machines are up and pass their checks before those go that no plan wants."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hgpu.core.errors import EngineError
from hgpu.deploy.driver import Progress
from hgpu.deploy.ec2.aim import Aim, Reach
from hgpu.deploy.ec2.capacity import OfferClosed, closed_for, still_closed
from hgpu.deploy.ec2.clients import told
from hgpu.deploy.ec2.intent import strays
from hgpu.deploy.ec2.launch import launched
from hgpu.deploy.ec2.sight import wait_for
from hgpu.deploy.ec2.state import ClosedOffer, Ec2State, MachineState, Step, key_of, write_state
from hgpu.deploy.ec2.templates import deleted, existing, made, with_template
from hgpu.deploy.ec2.terminate import terminated, terminated_ids
from hgpu.deploy.ec2.wanted import WantedPool
from hgpu.deploy.ec2.world import look, passing
from hgpu.deploy.state import Phase


@dataclass(slots=True)
class Rollout:
    """One apply at work: the state as it stands on disk, and what this call has launched."""

    folder: Path
    state: Ec2State
    reach: Reach
    subnet: str | None
    progress: Progress
    pools: Sequence[WantedPool] = ()
    started: list[tuple[str, int]] = field(default_factory=list)

    def aim(self, aim: Aim) -> None:
        """Write down what to reach, before anything is called."""
        self.pools = aim.pools
        if aim.target != self.state:
            self.save(aim.target)

    def close(self, closed: ClosedOffer) -> None:
        """Write down that an offer can't be had."""
        others = [r for r in self.state.closed if (r.offer, r.region) != (closed.offer, closed.region)]
        self.save(self.state.model_copy(update={"closed": [*others, closed]}))

    def make(self) -> None:
        """Create templates and machines, and wait until all pass EC2's checks.

        Raises OfferClosed where an offer can't be had, EngineError naming the machine that doesn't come up.
        """
        self.make_templates()
        for machine in self.state.at(Step.PLANNED, Step.LAUNCHING):
            if machine.instance_id is None:
                self.launch(machine)
        self._await_up()

    def release(self) -> None:
        """Terminate what no plan wants or the state doesn't know; delete templates that nothing runs from."""
        self.terminate(self.state.at(Step.LEAVING, Step.TERMINATING))
        world = look(self.reach.clients, self.state.regions, self.state.name)
        unknown = [i for i in world.instances if i.id in strays(self.state, world)]
        if unknown:
            self.progress(f"terminating {len(unknown)} machines that the state doesn't know")
            terminated_ids({i.id: i.region for i in unknown}, self.reach.clients, self.reach.waits)
        self.drop_templates()

    def settle(self, phase: Phase) -> None:
        """Record what has become of the deployment."""
        if self.state.phase is not phase:
            self.save(self.state.model_copy(update={"phase": phase}))

    def fail(self, keep: bool) -> None:
        """Record a failure; unless `keep`, the machines that this call launched are taken down."""
        if self.started and not keep:
            self.terminate([m for m in self.state.machines if key_of(m) in self.started])
        self.save(self.state.model_copy(update={"phase": Phase.DEGRADED}))

    def terminate(self, machines: Sequence[MachineState]) -> None:
        """Take machines away, the intent written before, and forget them when they are gone."""
        if not machines:
            return
        asked_for = [m for m in machines if m.step is not Step.PLANNED]
        going = [m.model_copy(update={"step": Step.TERMINATING}) for m in asked_for]
        if going:
            self.save(self.state.with_machines(going))
            self.progress(f"terminating {', '.join(m.slot for m in going)}")
            terminated(going, self.state.name, self.reach.clients, self.reach.waits)
        self.save(self.state.without_machines(machines))

    def save(self, state: Ec2State) -> None:
        """Write the state down and go on with it."""
        self.state = write_state(self.folder, state)

    def make_templates(self) -> None:
        """Create the launch templates that are wanted and aren't there."""
        regions = sorted({pool.row.region for pool in self.pools})
        there = {t.name: t for r in regions for t in existing(self.state, r, self.reach.clients(r))}
        for pool in self.pools:
            template = there.get(pool.template) or made(pool, self.state.name, self.reach.clients)
            if with_template(self.state, template) != self.state:
                self.save(with_template(self.state, template))

    def launch(self, machine: MachineState) -> None:
        """Launch a machine, the intent written before. Raises OfferClosed where its offer can't be had."""
        closed = closed_for(machine, still_closed(self.state.closed, self.reach.now()))
        if closed is not None:
            raise OfferClosed(closed)
        self.started.append(key_of(machine))
        self.progress(f"{machine.slot}: launching {machine.offer} in {machine.region}")
        client = self.reach.clients(machine.region)

        def save(changed: MachineState) -> None:
            self.save(self.state.with_machines([changed]))

        made_one = launched(machine, self.state, self.subnet, client, save, self.reach.now())
        self.progress(f"{made_one.slot}: is {made_one.instance_id}")

    def _await_up(self) -> None:
        """Wait for EC2's checks of all machines that weren't proven yet."""
        waiting = self.state.at(Step.LAUNCHING)
        for region in sorted({machine.region for machine in waiting}):
            mine = [machine for machine in waiting if machine.region == region]
            ids = [machine.instance_id for machine in mine if machine.instance_id]
            self.progress(f"waiting for {len(ids)} machines in {region} to pass EC2's checks")
            client = self.reach.clients(region)
            for waiter in ("instance_running", "instance_status_ok"):
                if not wait_for(client, waiter, ids, self.reach.waits.healthy):
                    raise self._not_up(mine)
            with told():  # the waiter overlooks a machine that EC2 no longer lists
                good = passing(client, ids)
            if good != set(ids):
                raise self._not_up([m for m in mine if m.instance_id not in good])
            self.save(self.state.with_machines(m.model_copy(update={"step": Step.UP}) for m in mine))

    def _not_up(self, machines: Sequence[MachineState]) -> EngineError:
        world = look(self.reach.clients, self.state.regions, self.state.name)
        said = []
        for machine in machines:
            found = world.instance(machine.instance_id)
            what = (
                f"is {found.state}: {found.reason or 'EC2 gives no reason'}" if found else "isn't described"
            )
            said.append(f"{machine.slot} ({machine.instance_id}) {what}")
        return EngineError(
            f"machines are not up after {self.reach.waits.health_s:g} s, or ended before",
            "; ".join(said),
            "read their console output, allow more --timeout, or deploy again",
        )

    def drop_templates(self) -> None:
        """Delete the launch templates that nothing wanted runs from."""
        needed = {pool.template for pool in self.pools}
        for region in self.state.regions:
            found = existing(self.state, region, self.reach.clients(region))
            deleted([template for template in found if template.name not in needed], self.reach.clients)
        rows = [row for row in self.state.templates if row.name in needed]
        regions = sorted({pool.row.region for pool in self.pools})
        changed = self.state.model_copy(update={"templates": rows, "regions": regions})
        if changed != self.state:
            self.save(changed)
