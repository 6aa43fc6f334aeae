"""Profiles of components as a file: rows of component, gpu, count and seconds, in CSV or JSON."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hgpu.artifacts.manifest import Strict
from hgpu.core.errors import InputError
from hgpu.specs.rl import Role
from hgpu.specs.serve import Count, Positive


class Row(Strict):
    """Seconds of a component on a GPU type with a count; see ComponentSpec for what is counted."""

    component: Role
    gpu: str
    count: Count
    seconds: Positive


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file by its suffix, .csv or .json (a list of objects).

    Raises InputError naming file and row for whatever is missing or wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = _csv(text) if path.suffix == ".csv" else json.loads(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"can't read profiles from {path}",
            getattr(error, "strerror", None) or str(error),
            "give a CSV or JSON file",
        ) from error
    try:
        return TypeAdapter(list[Row]).validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ", ".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
        raise InputError(
            f"{path}: bad row {place or '(none)'}",
            first["msg"],
            "its columns are component, gpu, count, seconds",
        ) from error


def _csv(text: str) -> list[dict[str, Any]]:
    import csv

    return list(csv.DictReader(text.splitlines()))
