"""The processes of one deployment and their state, which changes on disk before and after each of them does."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from hgpu.core.errors import HgpuError
from hgpu.deploy.driver import Progress
from hgpu.deploy.launch import Launch
from hgpu.deploy.state import Phase, SlotState, State, log_path, write_state
from hgpu.runtime.completion import api_key
from hgpu.runtime.processes import spawn, stop
from hgpu.runtime.tags import slot_of, tag_of, tagged


@dataclass(slots=True)
class Running:
    """A deployment's state as it stands on disk, and how a slot of it is started. The lock is held."""

    folder: Path
    progress: Progress
    state: State

    def start(self, name: str, launch: Launch) -> None:
        """Stop what is left in the slot, write the intent, spawn, and write the pid."""
        stop_all(self.processes(name))
        self.save_slot(
            name,
            command=launch.command,
            environment=launch.environment,
            pid=None,
            created=None,
            phase=Phase.STARTING,
        )
        self.progress(f"{name}: starting")
        tag = tag_of(self.state.name, name, self.folder)
        environment = {**os.environ, **launch.environment, **_secrets()}
        cores = self.state.slot(name).cores
        pid, created = spawn(launch.command, environment, cores, log_path(self.folder, name), tag)
        self.progress(f"{name}: spawned")
        self.save_slot(name, pid=pid, created=created)
        self.progress(f"{name}: runs as pid {pid}")

    def ready(self, name: str) -> None:
        """Record that a slot is healthy."""
        if self.state.slot(name).phase is not Phase.READY:
            self.save_slot(name, phase=Phase.READY)
            self.progress(f"{name}: healthy")

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the living processes of a slot, by their tags."""
        return [p for p in tagged(self.state.name, self.folder) if slot_of(p) == name]

    def save_slot(self, name: str, **changes: object) -> None:
        """Change what the state says of a slot."""
        self.save(self.state.with_slot(self.state.slot(name).model_copy(update=changes)))

    def save(self, state: State) -> None:
        """Replace the state."""
        self.state = write_state(self.folder, state)


def launch_of(slot: SlotState) -> Launch:
    """Return how a slot was started."""
    return Launch(slot.command, slot.environment)


def stop_all(processes: Iterable[psutil.Process]) -> None:
    """Stop processes; raise HgpuError where one survives that."""
    survivors = stop(processes)
    if survivors:
        pids = ", ".join(str(process.pid) for process in survivors)
        raise HgpuError(
            f"processes {pids} don't stop", "they survived SIGKILL", "look at what holds them (ps, dmesg)"
        )


def _secrets() -> dict[str, str]:
    key = api_key()
    return {"VLLM_API_KEY": key} if key else {}
