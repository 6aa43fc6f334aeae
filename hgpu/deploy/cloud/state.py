"""What hgpu knows of a machine that profiles: written before and after every call that changes it."""

import hashlib
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field

from hgpu.artifacts.manifest import Strict
from hgpu.core.errors import InputError
from hgpu.deploy.state_file import read_file, write_file

TARGET: Literal["profile"] = "profile"
TOKEN_DIGITS = 48  # EC2 takes 64 characters


class Step(StrEnum):
    """How far a machine has come."""

    LAUNCHING = "launching"  # RunInstances was called, or is about to be
    RUNNING = "running"  # EC2 gave it an id
    HOME = "home"  # its results are in the store here; it may still run
    ENDED = "ended"  # nothing of it is left


class JobState(Strict):
    """The machine of a job. `attempt` tells it from those before; `lineage` is drawn where the state begins.

    `deadline` (ISO 8601) is when it is taken away at the latest; `artifacts` are the digests that are home.
    """

    name: str
    region: str
    lineage: str
    target: Literal["profile"] = TARGET
    attempt: int = 0
    step: Step = Step.ENDED
    instance_id: str | None = None
    deadline: str = ""
    artifacts: list[str] = Field(default_factory=list)
    updated_at: str = ""

    @property
    def due(self) -> datetime:
        """The deadline as a moment."""
        return datetime.fromisoformat(self.deadline)

    @property
    def folder(self) -> str:
        """Where the results of this attempt lie, below the store's prefix."""
        return f"{self.lineage_folder}{self.attempt}/"

    @property
    def lineage_folder(self) -> str:
        """Where the results of all attempts lie, below the store's prefix."""
        return f"{self.name}/{self.lineage}/"


def client_token(state: JobState) -> str:
    """Return the idempotency token: a pure function of name, lineage and attempt."""
    parts = (state.name, state.lineage, str(state.attempt))
    return f"hgpu-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:TOKEN_DIGITS]}"


def read_state(folder: Path) -> JobState | None:
    """Return the state kept in `folder`, None where there is none, InputError where it can't be read."""
    try:
        return read_file(folder, JobState, TARGET)
    except InputError as error:
        raise InputError(
            error.what,
            error.why,
            f"delete {folder}: its machine ends by itself at its deadline, and can be swept",
        ) from error


def write_state(folder: Path, state: JobState) -> JobState:
    """Replace the state in `folder` atomically."""
    return write_file(folder, state)
