"""The targets that a placement renders for. A new one is a function and one entry here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.core.errors import UnknownName
from hgpu.deploy.render.document import Document
from hgpu.deploy.render.rlinf import rlinf_config
from hgpu.deploy.render.validate import Check

PLACEMENT, APPLY = "placement.yaml", "rlinf_apply.py"


@dataclass(frozen=True, slots=True)
class LoopTarget:
    """How to render a placement, how to check its documents, and the command that applies them by hand."""

    render: Callable[[PlacementPayload], list[Document]]
    check: Check
    by_hand: str


def rlinf_documents(plan: PlacementPayload) -> list[Document]:
    """Return the placement as a configuration, and the script that puts it into a task's."""
    script = files("hgpu.deploy.render").joinpath(APPLY).read_text(encoding="utf-8")
    return [Document(PLACEMENT, rlinf_config(plan)), Document(APPLY, script)]


def check_placement(document: Document, _definitions: Path | None) -> str:
    """Say what holds a document: the configuration was checked by RLinf's rules when it was rendered."""
    return "a script" if isinstance(document.body, str) else ""


LOOP_TARGETS = {
    "rlinf": LoopTarget(
        rlinf_documents,
        check_placement,
        "python {out}/rlinf_apply.py {out}/placement.yaml TASK.yaml TASK-placed.yaml",
    )
}


def loop_target(name: str) -> LoopTarget:
    """Return the target of a name, or raise UnknownName."""
    if name not in LOOP_TARGETS:
        raise UnknownName("target of a loop", name, LOOP_TARGETS)
    return LOOP_TARGETS[name]
