"""What hgpu knows of a deployment: one file, written before and after every step that touches the world."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from hgpu.artifacts.manifest import Strict
from hgpu.deploy.state_file import names_of_target, read_file, write_file
from hgpu.runtime.ports import local_url
from hgpu.runtime.vllm.folder_options import Side

TARGET = "local"
NO_PORT = 0  # of a process that serves nothing


class Phase(StrEnum):
    """How far a deployment, or one slot of it, has come."""

    PLANNED = "planned"  # decided, nothing started
    STARTING = "starting"  # about to start, or started and not yet healthy
    READY = "ready"
    DEGRADED = "degraded"  # a part of it is missing or failed
    DESTROYING = "destroying"
    DESTROYED = "destroyed"


class Role(StrEnum):
    """What a slot's process does."""

    ENGINE = "engine"
    BALANCER = "balancer"  # among the engines of a pool
    ROUTER = "router"  # before the pools
    SUPERVISOR = "supervisor"


class SlotState(Strict):
    """One process of the deployment: what it should be, and the pid that it has.

    `environment` is what its operating point adds to the environment; secrets are passed when
    it is spawned and stand nowhere. `created` is the process's creation time in Unix seconds. `side` is of an
    engine of a pair, or of what balances among such.
    """

    slot: str
    role: Role
    pool: str = ""
    side: Side | None = None
    port: int = NO_PORT
    metrics_port: int | None = None
    cores: list[int] = Field(default_factory=list)
    gpus: list[int] = Field(default_factory=list)
    command: list[str] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    pid: int | None = None
    created: float | None = None
    phase: Phase = Phase.PLANNED


class State(Strict):
    """A deployment."""

    name: str
    plan_digest: str
    target: str
    phase: Phase
    slots: list[SlotState] = Field(default_factory=list)
    front_url: str | None = None
    updated_at: str = ""

    def slot(self, name: str) -> SlotState:
        """Return the slot of that name."""
        return next(slot for slot in self.slots if slot.slot == name)

    def by_role(self, role: Role) -> list[SlotState]:
        """Return the slots of a role."""
        return [slot for slot in self.slots if slot.role is role]

    def pool_urls(self) -> dict[str, str]:
        """Return the URL of each pool: its balancer's, or that of its only engine; of pairs, what decodes."""
        return self._urls([slot for slot in self.slots if slot.side is not Side.PREFILL])

    def prefill_urls(self) -> dict[str, str]:
        """Return where each pool of pairs has its prompts computed."""
        return self._urls([slot for slot in self.slots if slot.side is Side.PREFILL])

    @property
    def has_pairs(self) -> bool:
        """Whether engines run in pairs."""
        return any(slot.side for slot in self.slots)

    def _urls(self, slots: Sequence[SlotState]) -> dict[str, str]:
        by_role = [slot for role in (Role.ENGINE, Role.BALANCER) for slot in slots if slot.role is role]
        return {slot.pool: local_url(slot.port) for slot in by_role}

    def with_slot(self, changed: SlotState) -> "State":
        """Return the state with one slot replaced."""
        slots = [changed if slot.slot == changed.slot else slot for slot in self.slots]
        return self.model_copy(update={"slots": slots})


def log_path(folder: Path, slot: str) -> Path:
    """Return where a slot's process writes its output."""
    return folder / f"{slot}.log"


def read_state(folder: Path) -> State | None:
    """Return the state kept in `folder`, None where there is none, InputError where it can't be read."""
    return read_file(folder, State, TARGET)


def write_state(folder: Path, state: State, now: datetime | None = None) -> State:
    """Replace the state in `folder` atomically and return it with the time of writing."""
    return write_file(folder, state, now)


def recorded_names(root: Path) -> list[str]:
    """Return the names of the local deployments that have a state file, readable or not."""
    return names_of_target(root, TARGET)


def held_places(states: Sequence[State]) -> tuple[set[int], set[int]]:
    """Return the cores and the GPU indices that deployments hold."""
    holding = [slot for state in states if state.phase is not Phase.DESTROYED for slot in state.slots]
    return {core for s in holding for core in s.cores}, {gpu for s in holding for gpu in s.gpus}
