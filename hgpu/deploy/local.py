"""The target `local`: real engines on this machine, one router before them where there are several."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.catalog.gpus import attached_gpus
from hgpu.core.errors import HgpuError, InputError, UnknownName
from hgpu.deploy.driver import Deployed, DeploymentStatus, DeployOptions, Destroyed, Progress
from hgpu.deploy.experts import write_hints
from hgpu.deploy.launch import Commands, PlanRef, VllmCommands, deployment_name, located
from hgpu.deploy.local_status import status_of
from hgpu.deploy.lock import locked, worker
from hgpu.deploy.modes import is_pair, paired
from hgpu.deploy.refresh import processes_of
from hgpu.deploy.rollout import Rollout
from hgpu.deploy.slots import engine_slots, slot_states
from hgpu.deploy.starts import Starts, shared_folder
from hgpu.deploy.state import (
    TARGET,
    Phase,
    Role,
    State,
    held_places,
    read_state,
    recorded_names,
    write_state,
)
from hgpu.deploy.state_file import state_folder, states_folder
from hgpu.runtime.completion import complete, served_model
from hgpu.runtime.machine import Machine, this_machine
from hgpu.runtime.ports import local_url
from hgpu.runtime.processes import stop
from hgpu.runtime.tags import tagged_deployments

_PROMPT = "The quick brown fox"
_COMPLETION_TOKENS = 8
_STOP_ROUNDS = 3  # a process that was starting another one when it was seen takes a second look


def _attached() -> Machine:
    return this_machine(attached_gpus())


@dataclass(frozen=True, slots=True)
class LocalDriver:
    """Deploys to this machine. `commands` and `machine` say what is started, and on what."""

    commands: Commands = field(default_factory=VllmCommands)
    machine: Callable[[], Machine] = _attached

    def apply(
        self, plan: Artifact[PlanPayload], root: Path, options: DeployOptions, progress: Progress
    ) -> Deployed:
        """Bring the plan's deployment up and make one completion; what runs as it should stays.

        Raises Infeasible where the plan doesn't fit, EngineError naming the slot and its log
        where one doesn't come up, HgpuError where another hgpu works on the deployment, and InputError
        where it runs in another mode.
        """
        name = deployment_name(plan.payload, plan.digest)
        folder = state_folder(root, name)
        payload = paired(plan.payload) if options.two_engines else plan.payload
        with locked(folder):
            progress("locked")
            write_hints(plan, root, folder)
            recorded = self._recorded(folder)
            if recorded is not None:
                _require_same_mode(recorded, payload)
            rollout = Rollout(
                folder=folder,
                starts=self.starts(plan, root, options.load_format),
                timeout_s=options.timeout_s,
                progress=progress,
                state=recorded or self._planned(payload, plan.digest, root, name),
            )
            try:
                return _rolled_out(rollout)
            except BaseException:
                rollout.fail(options.keep_on_failure)
                raise

    def status(
        self, root: Path, name: str | None = None, include_destroyed: bool = False
    ) -> list[DeploymentStatus]:
        """Look at the deployments under `root`, or at one of them. Nothing is changed or locked."""
        names = self.names(root)
        if name is not None and name not in names:
            raise UnknownName("deployment", name, names)
        found = [status_of(state_folder(root, one)) for one in ([name] if name else names)]
        return [row for row in found if include_destroyed or name or row.phase is not Phase.DESTROYED]

    def destroy(self, root: Path, name: str) -> Destroyed:
        """Stop every process of a deployment, by its state and by its tags, and prove that none is left."""
        if name not in self.names(root):
            raise UnknownName("deployment", name, self.names(root))
        folder = state_folder(root, name)
        with locked(folder):
            state = _readable(folder)
            if state and state.phase is not Phase.DESTROYED:
                state = write_state(folder, state.model_copy(update={"phase": Phase.DESTROYING}))
            killed = _stopped(name, folder, state)
            _forget_prompts(folder)
            gone = [slot.model_copy(update=_GONE) for slot in state.slots] if state else []
            base = state or State(name=name, plan_digest="", target=TARGET, phase=Phase.DESTROYED)
            write_state(
                folder, base.model_copy(update={"phase": Phase.DESTROYED, "slots": gone, "front_url": None})
            )
        return Destroyed(name, killed)

    def names(self, root: Path) -> list[str]:
        """Return the deployments under `root` that have a state, or processes that still run without one."""
        return sorted({*recorded_names(root), *tagged_deployments(states_folder(root))})

    def _recorded(self, folder: Path) -> State | None:
        """Return the state of a deployment that is still wanted; a destroyed one starts afresh."""
        state = read_state(folder)
        unfinished = state is not None and state.phase in (Phase.DESTROYING, Phase.DESTROYED)
        return None if unfinished else state

    def starts(self, plan: Artifact[PlanPayload], root: Path, load_format: str) -> Starts:
        """Return how the plan's processes are started, with a state under `root`."""
        folder = state_folder(root, deployment_name(plan.payload, plan.digest))
        ref = PlanRef(plan.digest, root.resolve())
        return Starts(located(plan.payload), ref, folder, self.commands, load_format)

    def _planned(self, plan: PlanPayload, digest: str, root: Path, name: str) -> State:
        """Decide places and ports, and write them down before anything starts."""
        rows = slot_states(engine_slots(plan, self.free_machine(root, name)))
        state = State(name=name, plan_digest=digest, target=TARGET, phase=Phase.PLANNED, slots=rows)
        _forget_prompts(state_folder(root, name))  # other weights may stand behind the same plan by now
        return write_state(state_folder(root, name), state)

    def free_machine(self, root: Path, name: str) -> Machine:
        """Return the machine without what the living deployments under `root`, but for `name`, hold."""
        machine = self.machine()
        others = [_readable(state_folder(root, one)) for one in recorded_names(root) if one != name]
        cores, gpus = held_places([state for state in others if state and _lives(root, state)])
        return replace(
            machine,
            cores=tuple(core for core in machine.cores if core not in cores),
            gpus=tuple(card for card in machine.gpus if card.index not in gpus),
        )


_GONE: dict[str, object] = {"pid": None, "created": None, "phase": Phase.DESTROYED}


def _rolled_out(rollout: Rollout) -> Deployed:
    rollout.progress("planned")
    rollout.adopt()
    for role in (Role.ENGINE, Role.BALANCER, Role.ROUTER):
        rollout.ensure(role)
    state = rollout.state
    front = (state.by_role(Role.ROUTER) or state.by_role(Role.ENGINE))[0]
    url = local_url(front.port)
    completion = complete(url, served_model(url), _PROMPT, _COMPLETION_TOKENS)
    rollout.progress("completed")
    rollout.ensure(Role.SUPERVISOR)
    rollout.settle(Phase.READY, url)
    rollout.progress("ready")
    return Deployed(rollout.state, completion, changed=bool(rollout.started))


def _require_same_mode(state: State, plan: PlanPayload) -> None:
    """Raise InputError where a deployment's engines run in pairs and shall not, or the other way round."""
    if state.has_pairs != any(is_pair(row) for row in plan.allocation):
        runs, how = ("two engines", "with") if state.has_pairs else ("one engine", "without")
        raise InputError(
            f"deployment '{state.name}' runs {runs} in each place",
            "a change of that would stop all of them",
            f"deploy {how} --two-engines, or `hgpu destroy {state.name}` first",
        )


def _forget_prompts(folder: Path) -> None:
    """Delete what pairs of engines have kept of prompts."""
    shared = shared_folder(folder)
    if shared.is_dir():
        shutil.rmtree(shared)


def _lives(root: Path, state: State) -> bool:
    """Tell whether a deployment runs, or an hgpu is about to make it run."""
    folder = state_folder(root, state.name)
    return worker(folder) is not None or bool(processes_of(state.name, folder, state))


def _readable(folder: Path) -> State | None:
    try:
        return read_state(folder)
    except InputError:
        return None


def _stopped(name: str, folder: Path, state: State | None) -> int:
    killed: set[int] = set()
    for _ in range(_STOP_ROUNDS):
        living = processes_of(name, folder, state)
        if not living:
            return len(killed)
        killed |= {process.pid for process in living}
        stop(living)
    left = processes_of(name, folder, state)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise HgpuError(
            f"deployment '{name}' is not gone",
            f"processes {pids} survived SIGKILL, or belong to another user",
            "look at what holds them, then destroy again",
        )
    return len(killed)
