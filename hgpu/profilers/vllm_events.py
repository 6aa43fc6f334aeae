"""What the measuring process says, read with a time limit: a silent engine must not hold up a profile.

Its lines are JSON objects: `done`, `total`, `at` (progress); `begins` [script, repeat] (this point is
in flight); `failed` (its point, and why); `error` [what, why, fix]; `finished`. Three more are
made here of what a process does instead of speaking: `ended`, `silent` and `garbled`.
"""

import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

Process: TypeAlias = "subprocess.Popen[bytes]"
Event = dict[str, Any]

EXIT_S = 10.0  # for the worker, and the engine's own processes, to follow its last word


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds in which an engine must start, and in which one run of a script must be done."""

    start_s: float
    point_s: float


def events(process: Process, limits: Limits) -> Iterator[Event]:
    """Yield events until the process ends, or says nothing for longer than its limit."""
    assert process.stdout is not None
    said, heard_s, limit_s = b"", time.monotonic(), limits.start_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, heard_s + limit_s - time.monotonic())):
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                yield {"ended": _status(process)}
                return
            *lines, said = (said + chunk).split(b"\n")
            for event in map(_event, lines):
                yield event
                heard_s = time.monotonic()
                limit_s = limits.point_s if "begins" in event else limit_s
    yield {"silent": limit_s}


def _event(line: bytes) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"garbled": line[:80].decode(errors="replace")}


def _status(process: Process) -> int | None:
    """Return the exit status; None where the process closed its output and lives on."""
    try:
        return process.wait(EXIT_S)
    except subprocess.TimeoutExpired:
        return None
