"""What `hgpu profile memory` calls: measure or read, and save."""

from pathlib import Path

from hgpu.artifacts.manifest import Environment
from hgpu.artifacts.payloads.memory import MemoryPayload
from hgpu.artifacts.reuse import save_once
from hgpu.artifacts.store import Artifact, Draft, save
from hgpu.profilers.memory import MemoryJob, describe_memory, profile_memory
from hgpu.profilers.vllm_host import cpu_model
from hgpu.report.progress import progress_of


def measure_and_save(root: Path, job: MemoryJob) -> Artifact[MemoryPayload]:
    """Measure this machine's memory and save the profile, also where it isn't valid."""
    with progress_of("profile memory") as progress:
        payload, validity = profile_memory(job, progress)
    cores = sum(len(node.cpus) for node in payload.nodes)
    draft = Draft(
        "memory",
        _slug(payload),
        payload,
        options={"repeats": job.repeats, "adam_elements": list(job.adam_elements)},
        environment=Environment(machine=f"{cpu_model()}, {cores} cores"),
        validity=validity,
    )
    return save(root, draft)


def describe_and_save(root: Path, sysfs: Path) -> Artifact[MemoryPayload]:
    """Read a recorded tree and save what it says, once."""
    payload = describe_memory(sysfs)
    return save_once(root, Draft("memory", _slug(payload), payload))


def _slug(payload: MemoryPayload) -> str:
    candidates = sum(node.cxl_candidate for node in payload.nodes)
    return f"{len(payload.nodes)}-nodes" + (f"-{candidates}-without-cpus" if candidates else "")
