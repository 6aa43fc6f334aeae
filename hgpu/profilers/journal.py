"""The journal of a long measurement: one JSON line a finished point, synced to the disk.

The first line says what is measured, on what; every other line is one run of a script, a script
that was skipped, or a run that failed. A crash can tear the last line only: it is dropped, and
measured again.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from hgpu.core.errors import HgpuError, InputError
from hgpu.core.step import StepBatch
from hgpu.profilers.telemetry_summary import CardTelemetry, card_from

FIX = "delete it and profile again"


@dataclass(frozen=True, slots=True)
class Header:
    """What a journal is of. `key` is the digest of the job; `setup_tokens` bounds its design."""

    key: str
    engine: str
    driver: str
    machine: str
    kv_capacity_tokens: int
    setup_tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a script: its steps in order, each with its seconds, and what the cards did."""

    script: str
    repeat: int
    steps: tuple[tuple[StepBatch, float], ...]
    telemetry: tuple[CardTelemetry, ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """A script that doesn't fit the engine, and why."""

    script: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that ended without a measurement, and why."""

    script: str
    repeat: int
    reason: str


Entry = Header | Run | Skip | Failure


@dataclass(frozen=True, slots=True)
class Journal:
    """What a journal holds; `header` is None before the engine was ready."""

    header: Header | None = None
    runs: tuple[Run, ...] = ()
    skips: tuple[Skip, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def points(self) -> set[tuple[str, int]]:
        """The (script, repeat) pairs that are done."""
        return {(run.script, run.repeat) for run in self.runs}

    @property
    def unmade(self) -> list[Failure]:
        """The last failure of each point that no later try has made good."""
        last = {(failure.script, failure.repeat): failure for failure in self.failures}
        return [failure for point, failure in last.items() if point not in self.points]


def append(path: Path, entry: Entry) -> None:
    """Write one line and sync it; a torn line before it is cut off.

    Raises HgpuError where the disk refuses.
    """
    line = json.dumps(_encode(entry), separators=(",", ":"), allow_nan=False).encode() + b"\n"
    try:
        with path.open("ab+") as stream:
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise HgpuError(
            f"can't write the journal '{path}'",
            error.strerror or str(error),
            "free space and profile again: finished points are kept",
        ) from error


def read(path: Path, key: str) -> Journal:
    """Return what the journal holds, empty where there is none.

    Raises InputError where it is of another job, or damaged before its last line.
    """
    content = path.read_bytes() if path.exists() else b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    try:
        entries = [_decode(json.loads(line)) for line in lines]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"the journal '{path}' is damaged", str(error), FIX) from error
    if not entries:
        return Journal()
    header = entries[0]
    if not isinstance(header, Header) or header.key != key:
        raise InputError(
            f"the journal '{path}' is of another profile",
            "its first line doesn't carry the key of this job",
            FIX,
        )
    return Journal(
        header,
        tuple(entry for entry in entries if isinstance(entry, Run)),
        tuple(entry for entry in entries if isinstance(entry, Skip)),
        tuple(entry for entry in entries if isinstance(entry, Failure)),
    )


def _encode(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Header):
        return {"header": asdict(entry)}
    if isinstance(entry, Skip):
        return {"script": entry.script, "skipped": entry.reason}
    if isinstance(entry, Failure):
        return {"script": entry.script, "repeat": entry.repeat, "failed": entry.reason}
    steps = [[*astuple(batch), seconds] for batch, seconds in entry.steps]
    told = {"telemetry": [asdict(card) for card in entry.telemetry]} if entry.telemetry else {}
    return {"script": entry.script, "repeat": entry.repeat, "steps": steps, **told}


def _decode(line: Mapping[str, Any]) -> Entry:
    if "header" in line:
        return Header(**line["header"])
    if "skipped" in line:
        return Skip(line["script"], line["skipped"])
    if "failed" in line:
        return Failure(line["script"], line["repeat"], line["failed"])
    steps = tuple((StepBatch(*numbers[:-1]), numbers[-1]) for numbers in line["steps"])
    told = tuple(card_from(card) for card in line.get("telemetry", ()))
    return Run(line["script"], line["repeat"], steps, told)
