"""Which processes belong to a deployment: those that carry its tag in their environment.

Children inherit the tag, and that is how orphans are found: an engine killed with SIGKILL leaves
its core and worker processes running without a parent. vLLM's processes and vllm-router rename
themselves with setproctitle, which overwrites the environment that the kernel shows unless
`SPT_NOENV` is set; so that is part of every tag.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from hgpu.runtime.processes import is_gone

DEPLOYMENT_TAG = "HGPU_DEPLOYMENT"
SLOT_TAG = "HGPU_SLOT"
STATE_TAG = "HGPU_STATE"


def tag_of(deployment: str, slot: str, folder: Path) -> dict[str, str]:
    """Return the environment variables that mark a process as one of a deployment's slot.

    `folder` holds the deployment's state: the same plan deployed from another results folder is
    another deployment.
    """
    place = str(folder.resolve())
    return {DEPLOYMENT_TAG: deployment, SLOT_TAG: slot, STATE_TAG: place, "SPT_NOENV": "1"}


def tagged(deployment: str, folder: Path) -> list[psutil.Process]:
    """Return this user's living processes that carry the tag of a deployment, by pid."""
    place = str(folder.resolve())
    return [
        process
        for process, environment in _tagged_processes()
        if environment[DEPLOYMENT_TAG] == deployment and environment.get(STATE_TAG) == place
    ]


def tagged_deployments(parent: Path) -> set[str]:
    """Return the names of the deployments with living processes whose state belongs into `parent`."""
    place = str(parent.resolve())
    return {
        environment[DEPLOYMENT_TAG]
        for _, environment in _tagged_processes()
        if str(Path(environment.get(STATE_TAG, "")).parent) == place
    }


def slot_of(process: psutil.Process) -> str:
    """Return the slot in a process's tag, empty where the process is gone."""
    return _environment(process).get(SLOT_TAG, "")


def _tagged_processes() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    own = os.getuid()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.uids().real == own and not is_gone(process):
                environment = _environment(process)
                if DEPLOYMENT_TAG in environment:
                    yield process, environment


def _environment(process: psutil.Process) -> dict[str, str]:
    with suppress(psutil.Error, OSError):
        return process.environ()
    return {}
