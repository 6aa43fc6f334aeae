"""Keeping a local deployment alive: what dies is started again, what hangs is stopped and started again.

The supervisor is a process of the deployment, started by `deploy` and ended by `destroy`. It changes nothing
but processes: what runs, where and how is what the state says. It holds the lock only while it starts
something, so that `deploy` and `destroy` never wait for a model to load.
"""

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hgpu.core.errors import HgpuError
from hgpu.deploy.driver import Progress
from hgpu.deploy.lock import locked
from hgpu.deploy.refresh import refreshed
from hgpu.deploy.running import Running, launch_of, stop_all
from hgpu.deploy.state import Phase, Role, SlotState, State, read_state
from hgpu.runtime.health import is_healthy
from hgpu.runtime.ports import local_url
from hgpu.runtime.processes import is_running, listens

LOOK_S = 0.5  # between looks; a death is noticed at once
PROBE_S = 5.0  # between two health probes of what is ready
HANGS_S = 60.0  # without a healthy answer
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # before what died young is started again
YOUNG_S = 60.0


@dataclass(slots=True)
class Record:
    """What the supervisor remembers of a slot; moments are of the monotonic clock."""

    deaths: int = 0  # in a row that were young
    started_s: float = 0.0
    died_s: float | None = None
    healthy_s: float | None = None
    probed_s: float = 0.0

    def due(self, now_s: float) -> bool:
        """Tell whether it may be started again: at once, and later and later where it keeps dying young."""
        if self.died_s is None:
            self.died_s = now_s
            self.deaths = self.deaths + 1 if now_s - self.started_s < YOUNG_S else 1
        wait_s = min(FIRST_WAIT_S * 2.0 ** (self.deaths - 2), LONGEST_WAIT_S) if self.deaths > 1 else 0.0
        return now_s >= self.died_s + wait_s

    def begin(self, now_s: float) -> None:
        """Note a start."""
        self.started_s, self.died_s, self.healthy_s = now_s, None, None


@dataclass(slots=True)
class Supervisor:
    """Looks after the deployment in `folder`."""

    folder: Path
    progress: Progress
    now_s: Callable[[], float] = time.monotonic
    records: dict[str, Record] = field(default_factory=dict)
    said: str = ""  # the last error: it is told once, not twice a second

    def run(self) -> None:
        """Look after it until it is destroyed."""
        while (state := read_state(self.folder)) is not None:
            if state.phase in (Phase.DESTROYING, Phase.DESTROYED):
                return
            self.look(state)
            _death_or_time([slot.pid for slot in state.slots if slot.pid is not None and _lives(slot)])

    def look(self, state: State) -> None:
        """Look at every slot once, and start what has to be. What another hgpu works on is left to it."""
        if state.phase is not Phase.READY:
            return
        for slot in state.slots:
            if slot.role is not Role.SUPERVISOR and self._needs_a_start(slot):
                self._try(slot.slot, self._start)

    def _needs_a_start(self, slot: SlotState) -> bool:
        record = self.records.setdefault(slot.slot, Record())
        now_s = self.now_s()
        if not _lives(slot):
            return record.due(now_s)
        probes_every_s = PROBE_S if slot.phase is Phase.READY else 0.0
        if now_s - record.probed_s < probes_every_s:
            return False
        record.probed_s = now_s
        if is_healthy(local_url(slot.port)):
            record.healthy_s = now_s
            if slot.phase is not Phase.READY:
                self._try(slot.slot, self._ready)
        return record.healthy_s is not None and now_s - record.healthy_s > HANGS_S

    def _try(self, name: str, act: Callable[[str], None]) -> None:
        """Act on a slot; where that fails (a lock, a full disk) it is said, and the next look tries again."""
        try:
            act(name)
        except HgpuError as error:
            if str(error) != self.said:
                self.said = str(error)
                self.progress(f"{name}: {error}")

    def _ready(self, name: str) -> None:
        with locked(self.folder, brief=True):
            running = self._running()
            if running is not None and listens(running.processes(name), running.state.slot(name).port):
                running.ready(name)

    def _start(self, name: str) -> None:
        with locked(self.folder, brief=True):
            running = self._running()
            if running is None:
                return
            record = self.records[name]
            slot = running.state.slot(name)
            if _lives(slot):
                if record.healthy_s is None:
                    return  # another hgpu has started it meanwhile
                running.progress(f"{name}: no healthy answer for {HANGS_S:.0f} s, stopping it")
                stop_all(running.processes(name))
            else:
                running.progress(f"{name}: died")
            record.begin(self.now_s())
            running.start(name, launch_of(slot))

    def _running(self) -> Running | None:
        """Return the deployment as it is now, None where it isn't to be looked after."""
        state = read_state(self.folder)
        if state is None or state.phase is not Phase.READY:
            return None
        return Running(self.folder, self.progress, refreshed(state, self.folder).state)


def _lives(slot: SlotState) -> bool:
    return slot.pid is not None and is_running(slot.pid, slot.created or 0.0)


def _death_or_time(pids: list[int]) -> None:
    """Return when one of the processes ends, or after a while."""
    handles = []
    for pid in pids:
        with suppress(OSError):  # just gone
            handles.append(os.pidfd_open(pid))
    try:
        select.select(handles, [], [], LOOK_S)
    finally:
        for handle in handles:
            os.close(handle)
