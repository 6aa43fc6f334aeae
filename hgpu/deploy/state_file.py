"""The file that keeps a deployment's state, whatever its target: where it is, read whole, replaced whole."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from hgpu.artifacts.durable import sync_folder, write_synced
from hgpu.artifacts.manifest import Strict
from hgpu.core.errors import HgpuError, InputError

STATE_FILE = "state.json"
# What has a state and is no deployment.
ELSEWHERE = {"profile": "the same `hgpu profile --on` again takes its machine away; or use another name"}
S = TypeVar("S", bound=Strict)


def states_folder(root: Path) -> Path:
    """Return the folder that holds a folder for each deployment."""
    return root / "state"


def state_folder(root: Path, name: str) -> Path:
    """Return the folder of one deployment: its state, its lock and its logs."""
    return states_folder(root) / name


def read_file(folder: Path, model: type[S], target: str) -> S | None:
    """Return the state kept in `folder`, None where there is none.

    Raises InputError where it is of another target or can't be read; `destroy` works without it, by the tags.
    """
    path = folder / STATE_FILE
    found = _target_of(path)
    if found not in (None, target):
        raise InputError(
            f"'{folder.name}' is a deployment on '{found}'",
            f"this is about '{target}'",
            ELSEWHERE.get(str(found), f"use --target {found}, or another name"),
        )
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError(
            f"the state of deployment '{folder.name}' can't be read",
            f"{path}: {why}",
            f"`hgpu destroy {folder.name}` finds what is of it by the tags; then deploy again",
        ) from error


def write_file(folder: Path, state: S, now: datetime | None = None) -> S:
    """Replace the state in `folder` atomically and return it with the time of writing in `updated_at`."""
    moment = now or datetime.now(UTC)
    stamped = state.model_copy(update={"updated_at": moment.isoformat(timespec="milliseconds")})
    text = json.dumps(stamped.model_dump(mode="json"), indent=1) + "\n"
    staging = folder / f".{STATE_FILE}.tmp"  # one writer at a time: the lock is held
    try:
        write_synced(staging, text.encode())
        staging.replace(folder / STATE_FILE)
        sync_folder(folder)
    except OSError as error:
        raise HgpuError(
            f"can't write the state of deployment '{folder.name}'",
            error.strerror or str(error),
            "free space or make the folder writable; `hgpu destroy` works without it",
        ) from error
    return stamped


def names_of_target(root: Path, target: str) -> list[str]:
    """Return the deployments with a state file of that target, and those whose target nobody can read."""
    files = states_folder(root).glob(f"*/{STATE_FILE}")
    return sorted(path.parent.name for path in files if _target_of(path) in (None, target))


def _target_of(path: Path) -> str | None:
    """Return the target that a state file names; None where it is unreadable."""
    try:
        document: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    target = document.get("target") if isinstance(document, dict) else None
    return target if isinstance(target, str) else None
