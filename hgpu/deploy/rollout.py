"""Bringing the processes of one deployment up, each step recorded before and after it happens."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.core.errors import HgpuError
from hgpu.deploy.launch import Commands, Launch
from hgpu.deploy.refresh import refreshed
from hgpu.deploy.state import Phase, Role, SlotState, State, log_path, write_state
from hgpu.runtime.completion import api_key
from hgpu.runtime.health import Server, ServerDied, wait_healthy
from hgpu.runtime.machine import Place
from hgpu.runtime.ports import free_ports, local_url
from hgpu.runtime.processes import is_running, listens, spawn, stop
from hgpu.runtime.tags import slot_of, tag_of, tagged

Progress = Callable[[str], None]
_PORT_TRIES = 3


@dataclass(slots=True)
class Rollout:
    """One `apply` at work: the state as it stands on disk, and what this call has started."""

    folder: Path
    plan: PlanPayload
    commands: Commands
    load_format: str
    timeout_s: float
    progress: Progress
    state: State
    started: list[str] = field(default_factory=list)

    def adopt(self) -> None:
        """Take over the processes that an interrupted apply started, and stop those of no slot."""
        view = refreshed(self.state, self.folder)
        if view.state != self.state:
            self._save(view.state)
        if view.strays:
            self.progress(f"stopping {len(view.strays)} processes that a crash left behind")
            _stop_all(view.strays)

    def ensure(self, role: Role) -> None:
        """Start the role's slots that don't run as they should, and wait until all are healthy."""
        names = [slot.slot for slot in self.state.by_role(role)]
        for name in names:
            launch = self._launch(self.state.slot(name))
            if not _runs(self.state.slot(name), launch):
                self._start(name, launch)
        self._await(names)

    def settle(self, phase: Phase, front_url: str | None) -> None:
        """Record what has become of the deployment."""
        if (self.state.phase, self.state.front_url) != (phase, front_url):
            self._save(self.state.model_copy(update={"phase": phase, "front_url": front_url}))

    def fail(self, keep: bool) -> None:
        """Record a failure; unless `keep`, what this call started is taken down.

        Where it started nothing, nothing has changed, and `status` tells what is the matter.
        """
        if not self.started:
            return
        stopped = [] if keep else self.started
        for name in stopped:  # all of them before the state is touched: a full disk must not leave one
            self.progress(f"{name}: stopping")
            stop(self._processes(name))
        for name in stopped:
            self._save_slot(name, pid=None, created=None, phase=Phase.DEGRADED)
        self._save(self.state.model_copy(update={"phase": Phase.DEGRADED}))

    def _launch(self, slot: SlotState) -> Launch:
        if slot.role is Role.ROUTER:
            urls = [local_url(engine.port) for engine in self.state.by_role(Role.ENGINE)]
            return self.commands.router(slot.port, slot.metrics_port or 0, urls)
        point = next(row.point for row in self.plan.allocation if row.pool == slot.pool)
        place = Place(tuple(slot.cores), tuple(slot.gpus))
        return self.commands.engine(self.plan, point, place, slot.port, self.load_format)

    def _start(self, name: str, launch: Launch) -> None:
        """Stop what is left in the slot, write the intent, spawn, and write the pid."""
        if name not in self.started:
            self.started.append(name)
        _stop_all(self._processes(name))
        self._save_slot(
            name,
            command=launch.command,
            environment=launch.environment,
            pid=None,
            created=None,
            phase=Phase.STARTING,
        )
        if self.state.phase is not Phase.STARTING:
            self._save(self.state.model_copy(update={"phase": Phase.STARTING}))
        self.progress(f"{name}: starting")
        tag = tag_of(self.state.name, name, self.folder)
        environment = {**os.environ, **launch.environment, **_secrets()}
        cores = self.state.slot(name).cores
        pid, created = spawn(launch.command, environment, cores, log_path(self.folder, name), tag)
        self.progress(f"{name}: spawned")
        self._save_slot(name, pid=pid, created=created)
        self.progress(f"{name}: runs as pid {pid}")

    def _await(self, names: Sequence[str]) -> None:
        """Wait for health; a server that found its port taken gets another one."""
        deadline = time.monotonic() + self.timeout_s
        for attempt in range(1, _PORT_TRIES + 1):
            servers = [self._server(self.state.slot(name)) for name in names]
            try:
                wait_healthy(servers, max(0.0, deadline - time.monotonic()), self._healthy)
                return
            except ServerDied as died:
                if not died.port_taken or attempt == _PORT_TRIES:
                    raise
                self._move(died.server)

    def _move(self, name: str) -> None:
        port, metrics_port = free_ports(2)
        is_router = self.state.slot(name).role is Role.ROUTER
        self._save_slot(name, port=port, metrics_port=metrics_port if is_router else None)
        self.progress(f"{name}: its port was taken, moving to {port}")
        self._start(name, self._launch(self.state.slot(name)))

    def _server(self, slot: SlotState) -> Server:
        def alive() -> bool:
            return slot.pid is not None and is_running(slot.pid, slot.created or 0.0)

        def owns_port() -> bool:
            return listens(self._processes(slot.slot), slot.port)

        return Server(slot.slot, local_url(slot.port), log_path(self.folder, slot.slot), alive, owns_port)

    def _healthy(self, name: str) -> None:
        if self.state.slot(name).phase is not Phase.READY:
            self._save_slot(name, phase=Phase.READY)
            self.progress(f"{name}: healthy")

    def _processes(self, name: str) -> list[Any]:
        return [p for p in tagged(self.state.name, self.folder) if slot_of(p) == name]

    def _save_slot(self, name: str, **changes: object) -> None:
        self._save(self.state.with_slot(self.state.slot(name).model_copy(update=changes)))

    def _save(self, state: State) -> None:
        self.state = write_state(self.folder, state)


def _runs(slot: SlotState, launch: Launch) -> bool:
    return slot.pid is not None and (slot.command, slot.environment) == (launch.command, launch.environment)


def _secrets() -> dict[str, str]:
    key = api_key()
    return {"VLLM_API_KEY": key} if key else {}


def _stop_all(processes: Iterable[Any]) -> None:
    survivors = stop(processes)
    if survivors:
        pids = ", ".join(str(process.pid) for process in survivors)
        raise HgpuError(
            f"processes {pids} don't stop", "they survived SIGKILL", "look at what holds them (ps, dmesg)"
        )
