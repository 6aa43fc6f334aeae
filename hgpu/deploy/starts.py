"""How each process of a local deployment is started: its slot, the plan, and where the others are."""

from dataclasses import dataclass
from pathlib import Path

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.deploy.launch import Commands, Launch, PlanRef
from hgpu.deploy.state import Role, SlotState, State
from hgpu.runtime.machine import Place
from hgpu.runtime.ports import local_url


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
            return self.commands.router(self.ref, slot.port, slot.metrics_port or 0, state.pool_urls())
        if slot.role is Role.BALANCER:
            engines = [engine for engine in state.by_role(Role.ENGINE) if engine.pool == slot.pool]
            urls = [local_url(engine.port) for engine in engines]
            return self.commands.balancer(slot.port, slot.metrics_port or 0, urls)
        point = next(row.point for row in self.plan.allocation if row.pool == slot.pool)
        place = Place(tuple(slot.cores), tuple(slot.gpus))
        return self.commands.engine(self.plan, point, place, slot.port, self.load_format)
