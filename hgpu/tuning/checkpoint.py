"""Checkpoints of a fine-tune: there whole or not at all, whatever happens while one is written."""

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hgpu.artifacts.durable import sync_folder, write_synced
from hgpu.core.errors import HgpuError, InputError
from hgpu.tuning.methods import set_trained_state, trained_state


@dataclass(slots=True)
class Course:
    """How far a fine-tune is, and what was measured on the way; `step` is the next one."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    trained: list[int] = field(default_factory=list)
    peak_bytes: int | None = None
    held_out_before: float | None = None
    resumes: int = 0


def save_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, course: Course) -> None:
    """Replace the checkpoint at `path`, synced to the disk. Raises HgpuError where the disk refuses."""
    content = io.BytesIO()
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]
    parts = {"weights": trained_state(model), "optimizer": optimizer.state_dict(), "random": states}
    torch.save({**parts, "course": asdict(course)}, content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        write_synced(part, content.getvalue())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise HgpuError(
            f"can't write the checkpoint {path}",
            error.strerror or str(error),
            "free space and run the same command: it goes on from the checkpoint before",
        ) from error


def read_course(path: Path) -> tuple[Course, dict[str, Any]]:
    """Return how far a checkpoint got, and its other parts for `restore`.

    Raises InputError where the file isn't one.
    """
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True)
        course = Course(**parts.pop("course"))
    except Exception as error:  # torch.load raises whatever unpickling does
        raise InputError(
            f"the checkpoint {path} is damaged", str(error).partition("\n")[0], "delete it to start anew"
        ) from error
    course.resumes += 1
    return course, parts


def restore(parts: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put weights, optimizer and random numbers back as they were."""
    set_trained_state(model, parts["weights"])
    optimizer.load_state_dict(parts["optimizer"])
    first, *others = parts["random"]
    torch.set_rng_state(first)
    if others and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(others)
