"""How each process of a local deployment is started: its slot, the plan, and where the others are."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.deploy.experts import with_experts
from hgpu.deploy.launch import Commands, Launch, PlanRef
from hgpu.deploy.modes import as_pair
from hgpu.deploy.state import Role, SlotState, State
from hgpu.runtime.machine import Place
from hgpu.runtime.ports import local_url
from hgpu.runtime.vllm.folder_options import LIMIT_BYTES, Side, folder_args

_SHARED = "kv"


@dataclass(frozen=True, slots=True)
class Starts:
    """What the command lines of a deployment rest on, beside its state. `folder` holds that state."""

    plan: PlanPayload
    ref: PlanRef
    folder: Path
    commands: Commands
    load_format: str

    def launch(self, slot: SlotState, state: State) -> Launch:
        """Return how to start a slot."""
        if slot.role is Role.SUPERVISOR:
            return self.commands.supervisor(self.folder)
        if slot.role is Role.ROUTER:
            urls, prefills = state.pool_urls(), state.prefill_urls()
            return self.commands.router(self.ref, slot.port, slot.metrics_port or 0, urls, prefills)
        if slot.role is Role.BALANCER:
            engines = [local_url(engine.port) for engine in _engines(state, slot.pool, slot.side)]
            return self.commands.balancer(slot.port, slot.metrics_port or 0, engines)
        place = Place(tuple(slot.cores), tuple(slot.gpus))
        row = started_row(self.plan, slot)
        launch = self.commands.engine(self.plan, row, place, slot.port, self.load_format)
        launch = with_experts(launch, row, self.folder)
        return connected(launch, slot, state, shared_folder(self.folder)) if slot.side else launch


def started_row(plan: PlanPayload, slot: SlotState) -> AllocationRow:
    """Return what was planned for an engine, as it's started: maybe as a side of a pair."""
    row = next(row for row in plan.allocation if row.pool == slot.pool)
    return as_pair(row) if slot.side else row


def shared_folder(folder: Path) -> Path:
    """Return where the pairs of the deployment in `folder` pass blocks of KV cache on."""
    return folder / _SHARED


def connected(launch: Launch, slot: SlotState, state: State, shared: Path) -> Launch:
    """Return an engine's start as a side of a pair; what a pool's engines write is bounded in sum."""
    side = Side(slot.side or Side.DECODE)
    writers = len(_engines(state, slot.pool, Side.PREFILL))
    part = f"pool-{quote(slot.pool, safe='')}"  # one part of a path, whatever the name
    words = folder_args(side, shared / part, LIMIT_BYTES // writers)
    return Launch([*launch.command, *words], launch.environment)


def _engines(state: State, pool: str, side: Side | None) -> list[SlotState]:
    return [slot for slot in state.by_role(Role.ENGINE) if (slot.pool, slot.side) == (pool, side)]
