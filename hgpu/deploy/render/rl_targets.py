"""The targets that a placement renders for. A new one is one entry here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.artifacts.payloads.placement import PlacementPayload
from hgpu.core.errors import InputError, UnknownName
from hgpu.deploy.render.document import Document
from hgpu.deploy.render.rl_jobs import loop_job, loop_options
from hgpu.deploy.render.rlinf import APPLY, PLACEMENT, apply_script, rlinf_config
from hgpu.deploy.render.tune import JOB_TARGETS
from hgpu.deploy.render.validate import Check

RLINF = "rlinf"
BY_HAND = "python {out}/rlinf_apply.py {out}/placement.yaml TASK.yaml TASK-placed.yaml"


@dataclass(frozen=True, slots=True)
class LoopTarget:
    """How to check a target's documents, and the command that applies them by hand."""

    check: Check
    by_hand: str


def loop_target(name: str) -> LoopTarget:
    """Return the target of a name, or raise UnknownName."""
    if name == RLINF:
        return LoopTarget(_check_rlinf, BY_HAND)
    if name not in JOB_TARGETS:
        raise UnknownName("target of a loop", name, [RLINF, *JOB_TARGETS])
    return LoopTarget(JOB_TARGETS[name].check, JOB_TARGETS[name].by_hand)


def render_loop(
    plan: PlacementPayload,
    digest: str,
    target: str,
    given: Mapping[str, Any],
    command: str | None,
    claim: str | None,
) -> list[Document]:
    """Return the documents of a placement for a target; `given` are the options of a job's files by name."""
    if target != RLINF:
        job = loop_job(plan, target, command, claim)
        return JOB_TARGETS[target].render(job, loop_options(plan, digest, target, given))
    if given or command or claim:
        words = ", ".join(f"--{name}" for name in [*given, *(["command"] if command else [])] or ["claim"])
        raise InputError(f"{words}: of a job", "RLinf's configuration has none of it", "drop it")
    return [Document(PLACEMENT, rlinf_config(plan)), Document(APPLY, apply_script())]


def _check_rlinf(document: Document, _definitions: Path | None) -> str:
    """Say what holds a document: the configuration was checked by RLinf's rules when it was rendered."""
    return "a script" if isinstance(document.body, str) else ""
