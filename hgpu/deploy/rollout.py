"""Bringing the processes of one deployment up, each step recorded before and after it happens."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hgpu.deploy.launch import Launch
from hgpu.deploy.refresh import refreshed
from hgpu.deploy.running import Running, stop_all
from hgpu.deploy.starts import Starts
from hgpu.deploy.state import Phase, Role, SlotState, log_path
from hgpu.runtime.health import Server, ServerDied, wait_healthy
from hgpu.runtime.ports import free_ports, local_url
from hgpu.runtime.processes import is_running, listens, stop

_PORT_TRIES = 3


@dataclass(slots=True)
class Rollout(Running):
    """One `apply` at work: the state as it stands on disk, and what this call has started."""

    starts: Starts
    timeout_s: float
    started: list[str] = field(default_factory=list)

    def adopt(self) -> None:
        """Take over the processes that an interrupted apply started, and stop those of no slot."""
        view = refreshed(self.state, self.folder)
        if view.state != self.state:
            self.save(view.state)
        if view.strays:
            self.progress(f"stopping {len(view.strays)} processes that a crash left behind")
            stop_all(view.strays)

    def ensure(self, role: Role) -> None:
        """Start the role's slots that don't run as they should, and wait until all are healthy."""
        names = [slot.slot for slot in self.state.by_role(role)]
        for name in names:
            launch = self.starts.launch(self.state.slot(name), self.state)
            if not _runs(self.state.slot(name), launch):
                self._begin(name, launch)
        if role is not Role.SUPERVISOR:  # it serves nothing
            self._await(names)
        for name in names:
            self.ready(name)

    def settle(self, phase: Phase, front_url: str | None) -> None:
        """Record what has become of the deployment."""
        if (self.state.phase, self.state.front_url) != (phase, front_url):
            self.save(self.state.model_copy(update={"phase": phase, "front_url": front_url}))

    def fail(self, keep: bool) -> None:
        """Record a failure; unless `keep`, what this call started is taken down.

        Where it started nothing, nothing has changed, and `status` tells what is the matter.
        """
        if not self.started:
            return
        stopped = [] if keep else self.started
        for name in stopped:  # all of them before the state is touched: a full disk must not leave one
            self.progress(f"{name}: stopping")
            stop(self.processes(name))
        for name in stopped:
            self.save_slot(name, pid=None, created=None, phase=Phase.DEGRADED)
        self.save(self.state.model_copy(update={"phase": Phase.DEGRADED}))

    def _begin(self, name: str, launch: Launch) -> None:
        if name not in self.started:
            self.started.append(name)
        if self.state.phase is not Phase.STARTING:
            self.save(self.state.model_copy(update={"phase": Phase.STARTING}))
        self.start(name, launch)

    def _await(self, names: Sequence[str]) -> None:
        """Wait for health; a server that found its port taken gets another one."""
        deadline = time.monotonic() + self.timeout_s
        for attempt in range(1, _PORT_TRIES + 1):
            servers = [self._server(self.state.slot(name)) for name in names]
            try:
                wait_healthy(servers, max(0.0, deadline - time.monotonic()), self.ready)
                return
            except ServerDied as died:
                if not died.port_taken or attempt == _PORT_TRIES:
                    raise
                self._move(died.server)

    def _move(self, name: str) -> None:
        port, metrics_port = free_ports(2)
        has_metrics = self.state.slot(name).metrics_port is not None
        self.save_slot(name, port=port, metrics_port=metrics_port if has_metrics else None)
        self.progress(f"{name}: its port was taken, moving to {port}")
        self._begin(name, self.starts.launch(self.state.slot(name), self.state))

    def _server(self, slot: SlotState) -> Server:
        def alive() -> bool:
            return slot.pid is not None and is_running(slot.pid, slot.created or 0.0)

        def owns_port() -> bool:
            return listens(self.processes(slot.slot), slot.port)

        return Server(slot.slot, local_url(slot.port), log_path(self.folder, slot.slot), alive, owns_port)


def _runs(slot: SlotState, launch: Launch) -> bool:
    return slot.pid is not None and (slot.command, slot.environment) == (launch.command, launch.environment)
