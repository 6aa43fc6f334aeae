"""Symptoms from a file: a kernel log with the driver's XID lines, or JSON lines of a telemetry recorder."""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hgpu.core.errors import InputError
from hgpu.runtime.faults import Kind, Symptom

# NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python3, GPU has fallen off the bus.
XID = re.compile(r"NVRM: Xid \((?:PCI:)?(?P<card>[0-9a-fA-F:.]+)\): (?P<xid>\d+)")
UPTIME = re.compile(r"\[\s*(?P<seconds>\d+\.\d+)\]")
FLAGS = (Kind.LOST, Kind.REMAP_PENDING, Kind.REMAP_FAILURE, Kind.ECC_OFF)
COUNTS = (Kind.XID, Kind.ECC_UNCORRECTED)
EXAMPLE = '{"time_s": 12.5, "card": "GPU 0", "xid": 79}'


def read_symptoms(lines: Iterable[str], name: str) -> list[Symptom]:
    """Return what a log tells of its cards; lines of a kernel log that aren't about XIDs are nobody's.

    Raises InputError with the line's number for JSON that isn't a record.
    """
    symptoms: list[Symptom] = []
    number = 0
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("{"):
            symptoms += _from_json(line, f"{name}:{number}")
        else:
            symptoms += _from_kernel(line)
    if not number:  # no healthy machine: `dmesg` prints nothing where it may not read
        raise InputError(
            f"nothing to judge in {name}",
            "it is empty",
            "is `dmesg` allowed here? Try sudo, or journalctl -k",
        )
    return symptoms


def symptoms_of_file(path: Path) -> list[Symptom]:
    """Return what a file tells, or standard input where the path is `-`."""
    if str(path) == "-":
        return read_symptoms(sys.stdin, "stdin")
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return read_symptoms(stream, str(path))
    except OSError as error:
        raise InputError(f"can't read {path}", error.strerror or str(error), "name a log, or -") from error


def _from_kernel(line: str) -> Iterator[Symptom]:
    found = XID.search(line)
    if found is not None:
        uptime = UPTIME.search(line)
        moment_s = float(uptime["seconds"]) if uptime else None
        yield Symptom(found["card"], Kind.XID, int(found["xid"]), moment_s)


def _from_json(line: str, where: str) -> Iterator[Symptom]:
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} isn't JSON", str(error), f"a record is {EXAMPLE}") from error
    card, moment_s = record.pop("card", None), record.pop("time_s", None)
    if not isinstance(card, str) or not (moment_s is None or _is_number(moment_s)):
        raise InputError(f"{where} isn't a record", "it needs a `card`, and `time_s` in seconds", EXAMPLE)
    if not record:
        raise InputError(f"{where} has no symptom", f"known: {', '.join(Kind)}", EXAMPLE)
    for key, value in record.items():
        for told in _values(key, value, where):
            yield Symptom(card, Kind(key), told, moment_s)


def _values(key: str, value: object, where: str) -> list[int | str]:
    """Return what a record tells under a key; a flag that isn't set and a count of 0 tell nothing."""
    if key not in set(map(str, Kind)):
        raise InputError(f"{where} has an unknown symptom '{key}'", f"known: {', '.join(Kind)}", EXAMPLE)
    if key in FLAGS and isinstance(value, bool):
        return [1] if value else []
    if key in COUNTS and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return [value] if value else []
    if key == Kind.THROTTLE and isinstance(value, list) and all(isinstance(row, str) for row in value):
        return list(value) or ["none"]
    if key in (Kind.LINK_WIDTH, Kind.POWER_LIMIT) and isinstance(value, str):
        return [value]
    raise InputError(
        f"{where}: '{key}' can't be {value!r}",
        "flags are true or false, counts whole numbers, `throttle` a list of reasons, the rest text",
        EXAMPLE,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
