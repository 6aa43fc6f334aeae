"""From the state on disk to what really runs: keep, adopt, or call it astray."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from hgpu.deploy.state import Phase, SlotState, State
from hgpu.runtime.processes import found, is_leader, is_running
from hgpu.runtime.tags import slot_of, tagged


@dataclass(frozen=True, slots=True)
class View:
    """The state as the processes bear it out.

    In `state`, a slot has a pid only if that process lives. `adopted` slots run as processes
    that the state on disk doesn't know: hgpu died between the spawn and its record. `strays`
    are tagged processes of no living slot, as the workers of an engine that was killed.
    """

    state: State
    adopted: tuple[str, ...]
    strays: tuple[psutil.Process, ...]


def refreshed(state: State, folder: Path) -> View:
    """Match a state with the living processes that carry the deployment's tag."""
    processes = tagged(state.name, folder)
    seen, adopted = state, []
    for slot in state.slots:
        now = _seen(slot, [process for process in processes if slot_of(process) == slot.slot])
        if now.pid is not None and now.pid != slot.pid:
            adopted.append(slot.slot)
        seen = seen.with_slot(now)
    sessions = {slot.pid for slot in seen.slots if slot.pid is not None}
    strays = tuple(process for process in processes if _session(process) not in sessions)
    return View(seen, tuple(adopted), strays)


def processes_of(name: str, folder: Path, state: State | None) -> list[psutil.Process]:
    """Return every living process of a deployment, by its tag and by its state."""
    by_pid = {process.pid: process for process in tagged(name, folder)}
    for slot in state.slots if state else []:
        if slot.pid is not None and (process := found(slot.pid, slot.created or 0.0)):
            by_pid.setdefault(process.pid, process)
    return [by_pid[pid] for pid in sorted(by_pid)]


def _seen(slot: SlotState, processes: Sequence[psutil.Process]) -> SlotState:
    if slot.pid is not None and is_running(slot.pid, slot.created or 0.0):
        return slot
    leaders = [process for process in processes if is_leader(process)]
    if len(leaders) == 1 and slot.phase is not Phase.PLANNED:
        return slot.model_copy(update={"pid": leaders[0].pid, "created": leaders[0].create_time()})
    phase = slot.phase if slot.phase is Phase.PLANNED else Phase.DEGRADED
    return slot.model_copy(update={"pid": None, "created": None, "phase": phase})


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None
