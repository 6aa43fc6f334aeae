"""Checkpoints of a fine-tune: there whole or not at all, whatever happens while one is written.

Safetensors and JSON, so that reading one runs no code.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hgpu.artifacts.durable import sync_file, sync_folder
from hgpu.core.errors import HgpuError, InputError
from hgpu.tuning.methods import set_trained_state, trained_state
from hgpu.tuning.ranks import Ranks
from hgpu.tuning.sharded import gathered, part_like

WEIGHTS, OPTIMIZER, RANDOM = "weights.", "optimizer.", "random."
Parts = dict[str, Tensor]


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


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, course: Course, ranks: Ranks
) -> None:
    """Replace the checkpoint at `path`, synced to the disk; the leader writes what all hold.

    Raises HgpuError where the disk refuses.
    """
    parts = {WEIGHTS + name: tensor for name, tensor in trained_state(model).items()}
    for number, state in optimizer.state_dict()["state"].items():
        parts |= {f"{OPTIMIZER}{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    generators = [states for kind in _generators() for states in ranks.rows(kind)]
    parts |= {f"{RANDOM}{number}": state for number, state in enumerate(generators)}
    whole = {name: gathered(tensor, ranks) for name, tensor in parts.items()}
    if ranks.leads:
        _write(path, whole, course)


def _write(path: Path, parts: Parts, course: Course) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        kept = {name: tensor.detach().contiguous() for name, tensor in parts.items()}
        save_file(kept, part, {"course": json.dumps(asdict(course))})
        sync_file(part)
        part.replace(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise HgpuError(
            f"can't write the checkpoint {path}",
            str(error),
            "free space and run the same command: it goes on from the checkpoint before",
        ) from error


def _generators() -> list[Tensor]:
    """Return the states of the CPU's and the current GPU's random numbers."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def read_checkpoint(path: Path | None, ranks: Ranks) -> tuple[Course, Parts | None]:
    """Return how far a checkpoint got, and its tensors for `restore`; a fresh start where there is none.

    The leader reads it for all, as other machines may not see its disk; the others' tensors are None.
    Raises InputError where it is damaged.
    """
    found = _read(path) if ranks.leads and path and path.exists() else None
    course: Course | None = ranks.told(found and found[0])
    if course is None:
        return Course(), None
    course.resumes += 1
    return course, found[1] if found else {}


def _read(path: Path) -> tuple[Course, Parts]:
    try:
        with safe_open(path, framework="pt") as file:
            course = Course(**json.loads(file.metadata()["course"]))
        return course, load_file(path)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"the checkpoint {path} is damaged", str(error), "delete it to start anew"
        ) from error


def restore(parts: Parts, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    """Put weights, optimizer and random numbers back as they were; `parts` are the leader's."""
    like = {WEIGHTS + name: tensor for name, tensor in trained_state(model).items()}
    for place, parameter in enumerate(optimizer.param_groups[0]["params"]):
        like |= {f"{OPTIMIZER}{place}.{name}": parameter for name in ("exp_avg", "exp_avg_sq")}
    parts = ranks.sent(parts, lambda name, tensor: part_like(like, name, tensor))
    set_trained_state(model, _under(WEIGHTS, parts))
    fresh = optimizer.state_dict()
    for name, tensor in _under(OPTIMIZER, parts).items():
        number, _, field_name = name.partition(".")
        fresh["state"].setdefault(int(number), {})[field_name] = tensor
    optimizer.load_state_dict(fresh)
    generators = [state for _, state in sorted(_under(RANDOM, parts).items(), key=lambda item: int(item[0]))]
    torch.set_rng_state(generators[ranks.number])
    if len(generators) > ranks.count and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators[ranks.count + ranks.number])


def _under(prefix: str, parts: Parts) -> Parts:
    return {name.removeprefix(prefix): tensor for name, tensor in parts.items() if name.startswith(prefix)}
