"""What `hgpu deploy --dry-run` calls: gather what a target's files rest on, render, check and write them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hgpu.artifacts.payloads.plan import PlanPayload
from hgpu.artifacts.store import Artifact
from hgpu.commands.simulating import plan_latency
from hgpu.deploy.launch import deployment_name
from hgpu.deploy.local import LocalDriver
from hgpu.deploy.modes import paired
from hgpu.deploy.render.document import Document, refuse_passed_over, render_options
from hgpu.deploy.render.local import local_documents
from hgpu.deploy.render.profiles import profile_documents
from hgpu.deploy.render.targets import LOCAL, rendered_target
from hgpu.deploy.render.write import Written, write_rendered
from hgpu.deploy.slots import engine_slots

_OF_FILES = ("load_format", "two_engines")  # options of a launch that local files show


def write_dry_run(
    plan: Artifact[PlanPayload],
    target: str,
    root: Path,
    out: Path,
    given: Mapping[str, Any],
    launching: Mapping[str, Any],
    definitions: Path | None,
) -> list[Written]:
    """Write what a target would be given. `given` are options of files, `launching` those of a launch.

    Raises InputError for those that the target's files would pass over.
    """
    found = rendered_target(target)
    if target == LOCAL:
        refuse_passed_over([*given, *(["crds"] if definitions else [])], "of other targets' files")
        refuse_passed_over([name for name in launching if name not in _OF_FILES], "of a launch")
        documents = _local(plan, root, **launching)
    else:
        refuse_passed_over(launching, "of a launch")
        options = render_options(plan.payload, plan.short, given)
        documents = found.render(plan.payload, options)
        if target == "aibrix" and options.autoscale:
            latency = {point: made.payload.latency for point, made in plan_latency(plan, root).items()}
            documents += profile_documents(plan.payload, options, latency, plan.manifest.created_at)
    return write_rendered(documents, found.check, out, definitions)


def _local(
    plan: Artifact[PlanPayload], root: Path, load_format: str = "auto", two_engines: bool = False
) -> list[Document]:
    payload = paired(plan.payload) if two_engines else plan.payload
    driver = LocalDriver()
    machine = driver.free_machine(root, deployment_name(plan.payload, plan.digest))
    return local_documents(engine_slots(payload, machine), driver.starts(plan, root, load_format))
