"""What hgpu knows of a deployment on EC2: written before and after every call that creates or takes away."""

import hashlib
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field

from hgpu.artifacts.manifest import Strict
from hgpu.deploy.state import Phase
from hgpu.deploy.state_file import names_of_target, read_file, write_file

TARGET: Literal["aws"] = "aws"
TOKEN_DIGITS = 48  # EC2 takes 64 characters


class Step(StrEnum):
    """How far one machine has come."""

    PLANNED = "planned"  # nothing was asked of EC2
    LAUNCHING = "launching"  # RunInstances was called, or is about to be; no proof yet that it runs
    UP = "up"  # it ran and passed EC2's checks
    LOST = "lost"  # it was launched and is no more
    LEAVING = "leaving"  # no plan wants it; it goes when its successors are up
    TERMINATING = "terminating"  # TerminateInstances was called, or is about to be


class Rung(StrEnum):
    """Where a machine stands on the ladder of health."""

    STARTING = "starting"  # not ready yet, and not for too long
    READY = "ready"  # EC2's checks pass, and its engines are healthy where they are asked
    DEGRADED = "degraded"  # was ready, and hasn't been for less time than is waited
    FAILED = "failed"  # stopped, or not ready for too long


class Watched(Strict):
    """What the supervisor saw of a machine last: its rung, since when (ISO 8601), and why."""

    rung: Rung
    since: str
    why: str = ""


class Cordon(Strict):
    """Why a machine gets no new requests and goes, since when, and by when at the latest.

    `notice` where EC2 takes it away whatever becomes of its health; `served` where it had been ready.
    """

    why: str
    at: str
    until: str | None = None
    notice: bool = False
    served: bool = True


class MachineState(Strict):
    """One machine. `generation` and `attempt` tell it from those that had its slot before.

    `template` is the name of its launch template, which holds a digest of all that it runs. `watched` and
    `cordon` are the supervisor's.
    """

    slot: str
    pool: str
    offer: str
    region: str
    instance_type: str
    market: str
    usd_per_hour: float
    template: str
    generation: int
    attempt: int = 1
    instance_id: str | None = None
    step: Step = Step.PLANNED
    watched: Watched | None = None
    cordon: Cordon | None = None


class TemplateState(Strict):
    """A launch template; without an id it may or may not exist. Only its first version is used."""

    name: str
    region: str
    id: str | None = None
    version: Literal["1"] = "1"


class ClosedOffer(Strict):
    """An offer that can't be had until a time (ISO 8601), and why not."""

    offer: str
    region: str
    until: str
    reason: str


class Chosen(Strict):
    """What the user chose of the machines, beside the plan: a supervisor launches them alike."""

    image: str
    secret: str
    security_groups: list[str]
    subnet: str | None


class Ec2State(Strict):
    """A deployment on EC2. `generation` grows with every plan that adds machines, and never falls.

    `lineage` is drawn where a state begins and kept over all that follows: machines with the deployment's
    name and another lineage are another state's. `replaced` has when the supervisor launched replacements.
    """

    name: str
    lineage: str = ""
    target: Literal["aws"] = TARGET
    plan_digest: str = ""
    generation: int = 0
    phase: Phase = Phase.PLANNED
    regions: list[str] = Field(default_factory=list)
    machines: list[MachineState] = Field(default_factory=list)
    templates: list[TemplateState] = Field(default_factory=list)
    closed: list[ClosedOffer] = Field(default_factory=list)
    private_addresses: bool = False
    chosen: Chosen | None = None
    replaced: list[str] = Field(default_factory=list)
    updated_at: str = ""

    def with_machines(self, changed: Iterable[MachineState]) -> "Ec2State":
        """Return the state with the machines of some slots and generations replaced."""
        new = {key_of(machine): machine for machine in changed}
        return self.model_copy(update={"machines": [new.get(key_of(m), m) for m in self.machines]})

    def without_machines(self, gone: Iterable[MachineState]) -> "Ec2State":
        """Return the state without some machines."""
        keys = {key_of(machine) for machine in gone}
        return self.model_copy(update={"machines": [m for m in self.machines if key_of(m) not in keys]})

    def at(self, *steps: Step) -> list[MachineState]:
        """Return the machines that have come so far."""
        return [machine for machine in self.machines if machine.step in steps]


def key_of(machine: MachineState) -> tuple[str, int]:
    """Return what tells a machine from all others of its deployment at one time."""
    return machine.slot, machine.generation


def client_token(state: Ec2State, machine: MachineState) -> str:
    """Return the idempotency token: a pure function of deployment, slot, generation and attempt.

    EC2 answers a repeated RunInstances that has the same token with the machine of the first call, for a
    day after that machine's end too: so a state that begins anew has another lineage, and other tokens.
    """
    parts = (state.name, state.lineage, machine.slot, str(machine.generation), str(machine.attempt))
    return f"hgpu-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:TOKEN_DIGITS]}"


def read_state(folder: Path) -> Ec2State | None:
    """Return the state kept in `folder`, None where there is none, InputError where it can't be read."""
    return read_file(folder, Ec2State, TARGET)


def write_state(folder: Path, state: Ec2State) -> Ec2State:
    """Replace the state in `folder` atomically."""
    return write_file(folder, state)


def recorded_names(root: Path) -> list[str]:
    """Return the names of the deployments on EC2 that have a state file, readable or not."""
    return names_of_target(root, TARGET)
