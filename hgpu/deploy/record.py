"""What a deployment leaves among the artifacts: which plan ran how, without ports, pids and host paths."""

from pathlib import Path

from hgpu.artifacts.payloads.deployment import DeploymentPayload, SlotRow
from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.deploy.driver import Deployed
from hgpu.deploy.experts import with_experts
from hgpu.deploy.launch import Commands, PlanRef, VllmCommands
from hgpu.deploy.starts import connected, shared_folder, started_row
from hgpu.deploy.state import Role, SlotState, State
from hgpu.deploy.state_file import state_folder
from hgpu.runtime.machine import Place
from hgpu.runtime.ports import local_url

_RESULTS = Path("results")
_ANY_PORT = 0  # chosen anew by every start, so it has no part in the record


def deployment_payload(
    plan: PlanPayload, deployed: Deployed, load_format: str, commands: Commands | None = None
) -> DeploymentPayload:
    """Return the payload of the `deployment` artifact."""
    commands = commands or VllmCommands(python="python")
    state = deployed.state
    engines = state.by_role(Role.ENGINE)
    routed = bool(state.by_role(Role.ROUTER))
    pools = {pool: local_url(_ANY_PORT) for pool in state.pool_urls()}
    prefills = {pool: local_url(_ANY_PORT) for pool in state.prefill_urls()}
    ref = PlanRef(state.plan_digest, _RESULTS)
    return DeploymentPayload(
        name=state.name,
        target=state.target,
        slots=[
            _row(slot, state, plan, load_format, commands)
            if state.target == "local"
            else _elsewhere(slot, plan)
            for slot in engines
        ],
        router=commands.router(ref, _ANY_PORT, _ANY_PORT, pools, prefills).command if routed else [],
        model_source=plan.model_source,
        completion_tokens=deployed.completion.tokens if deployed.completion else 0,
    )


def _elsewhere(slot: SlotState, plan: PlanPayload) -> SlotRow:
    """Return an engine of a cluster, whose command says no port or place of a machine."""
    point = next(row.point for row in plan.allocation if row.pool == slot.pool)
    return SlotRow(slot=slot.slot, pool=slot.pool, point=point, cores=[], gpus=[], command=slot.command)


def _row(slot: SlotState, state: State, plan: PlanPayload, load_format: str, commands: Commands) -> SlotRow:
    row = started_row(plan, slot)
    place = Place(tuple(slot.cores), tuple(slot.gpus))
    folder = state_folder(_RESULTS, state.name)
    launch = with_experts(commands.engine(plan, row, place, _ANY_PORT, load_format), row, folder)
    if slot.side:
        launch = connected(launch, slot, state, shared_folder(folder))
    command = launch.command
    return SlotRow(
        slot=slot.slot, pool=slot.pool, point=row.point, cores=slot.cores, gpus=slot.gpus, command=command
    )
