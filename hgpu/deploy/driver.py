"""What every deployment target can do, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.deploy.state import Phase, Role, State
from hgpu.runtime.completion import Completion

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """`load_format` "dummy" makes random weights; `timeout_s` bounds each wait for health.

    With `two_engines`, each engine's place is shared by a pair of them (locally only).
    """

    load_format: str = "auto"
    timeout_s: float = 1200.0
    keep_on_failure: bool = False
    two_engines: bool = False


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment that is up; `changed` is False where everything ran already.

    A cluster's engines can't be reached from here: their health is what its probes say, and `completion`
    is None.
    """

    state: State
    completion: Completion | None
    changed: bool


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """One process, or on a cloud one machine, of a deployment as it is now.

    `healthy` is None where its engines can't be asked from here. `where` names what stands for the pid.
    """

    slot: str
    role: Role
    pool: str
    phase: Phase
    pid: int | None
    url: str
    alive: bool
    healthy: bool | None
    log: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """A deployment as it is now; `drift` says where that differs from its state."""

    name: str
    target: str
    plan_digest: str
    phase: Phase
    front_url: str | None
    slots: tuple[SlotStatus, ...]
    drift: tuple[str, ...]
    updated_at: str


@dataclass(frozen=True, slots=True)
class Destroyed:
    """A deployment that is gone; `killed` counts what had to be stopped: processes, or machines (`noun`)."""

    name: str
    killed: int
    noun: str = "processes"


class Watched(Protocol):
    """A target whose deployments can be watched and taken away, also after a crash."""

    def status(
        self, root: Path, name: str | None = None, include_destroyed: bool = False
    ) -> list[DeploymentStatus]:
        """Look at the deployments under `root`, or at one of them, and change nothing."""
        ...

    def destroy(self, root: Path, name: str) -> Destroyed:
        """Take a deployment away by its state and its tags, and prove that nothing is left."""
        ...

    def names(self, root: Path) -> list[str]:
        """Return the names of the deployments under `root`."""
        ...


class Driver(Watched, Protocol):
    """A target that runs a plan's processes. Every verb can be repeated, also after a crash in its middle."""

    def apply(
        self, plan: Artifact[PlanPayload], root: Path, options: DeployOptions, progress: Progress
    ) -> Deployed:
        """Make the world as the plan says, changing only what differs, and prove it with a completion."""
        ...
