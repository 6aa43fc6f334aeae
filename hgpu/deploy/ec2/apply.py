"""One apply: the go-ahead, the rollout, and another plan where an offer can't be had."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgpu.core.errors import HgpuError, Infeasible
from hgpu.deploy.driver import Progress
from hgpu.deploy.ec2.aim import Plan, Reach, first_aim, next_aim
from hgpu.deploy.ec2.capacity import OfferClosed
from hgpu.deploy.ec2.diff import Diff
from hgpu.deploy.ec2.engines import Answer, proven
from hgpu.deploy.ec2.options import Ec2Options
from hgpu.deploy.ec2.rollout import Rollout
from hgpu.deploy.ec2.state import ClosedOffer, Ec2State, Step
from hgpu.deploy.ec2.wanted import WantedPool
from hgpu.deploy.ec2.world import look
from hgpu.deploy.launch import served_name
from hgpu.deploy.lock import locked
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import state_folder

Approve = Callable[[Diff], None]  # raises where the user doesn't want it
# From a plan, and what is closed with how many machines of it run already, to a plan around that.
Replan = Callable[[Plan, Sequence[tuple[ClosedOffer, int]]], Plan]


@dataclass(frozen=True, slots=True)
class Launched:
    """A deployment whose machines are up; `answers` is empty where engines can't be asked from here."""

    state: Ec2State
    plan: Plan
    pools: Sequence[WantedPool]
    answers: Sequence[Answer]
    changed: bool


@dataclass(frozen=True, slots=True)
class Apply:
    """What an apply works with."""

    root: Path
    options: Ec2Options
    reach: Reach
    replan: Replan | None
    progress: Progress

    def run(self, plan: Plan, approve: Approve) -> Launched:
        """Reach the plan, or one around what is closed, under the deployment's lock."""
        folder = state_folder(self.root, self.options.render.name)
        with locked(folder):
            aim = first_aim(plan, self.root, self.options, self.reach)
            if not aim.diff.empty:
                approve(aim.diff)
            rollout = Rollout(folder, aim.recorded, self.reach, self.options.subnet, self.progress)
            rollout.aim(aim)
            try:
                reached = self._made(rollout, plan)
                answers = self._answers(rollout, reached)
            except BaseException:
                self._failed(rollout)
                raise
            rollout.release()
            rollout.settle(Phase.READY)
            changed = not aim.diff.empty or reached.digest != aim.recorded.plan_digest
            return Launched(rollout.state, reached, rollout.pools, answers, changed)

    def _made(self, rollout: Rollout, asked: Plan) -> Plan:
        """Bring the machines up; where an offer is closed, go on with a plan around it. Return the plan."""
        plan = asked
        while True:
            try:
                rollout.make()
                return plan
            except OfferClosed as error:
                rollout.close(error.closed)
                if self.replan is None:
                    raise
                self.progress(f"{error.what}: {error.closed.reason}; planning around it")
                plan = self._around(error, asked, rollout.state)
                rollout.aim(next_aim(rollout.state, plan, self.options, self.reach))

    def _around(self, error: OfferClosed, plan: Plan, state: Ec2State) -> Plan:
        """Solve again; where that is no way out, say what is closed and until when beside why."""
        assert self.replan is not None
        try:
            return self.replan(plan, [(row, held(state, row)) for row in state.closed])
        except Infeasible as none:
            why = f"{error.closed.reason}; closed until {error.closed.until}; {none.what}: {none.why}"
            raise Infeasible(error.what, why, none.fix) from none

    def _answers(self, rollout: Rollout, plan: Plan) -> list[Answer]:
        """Ask the engines, where this machine is inside their network."""
        if not self.options.private_addresses:
            return []
        self.progress("asking the engines at their private addresses")
        reach, state, model = self.reach, rollout.state, served_name(plan.payload)
        world = look(reach.clients, state.regions, state.name)
        return proven(state, rollout.pools, world, reach.addresses, reach.waits, model)

    def _failed(self, rollout: Rollout) -> None:
        """Take down what was launched; the error that led here must not be lost to another one."""
        try:
            rollout.fail(self.options.keep_on_failure)
        except HgpuError as error:
            self.progress(f"the machines of this deploy may still run: {error}")
            self.progress(f"`hgpu destroy {rollout.state.name} --target aws` takes them down")


def held(state: Ec2State, closed: ClosedOffer) -> int:
    """Return how many machines of a closed offer the deployment has already."""
    mine = [m for m in state.machines if (m.offer, m.region) == (closed.offer, closed.region)]
    living = (Step.LAUNCHING, Step.UP)
    return sum(machine.step in living and machine.instance_id is not None for machine in mine)
