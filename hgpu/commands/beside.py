"""What `hgpu plan --beside` names: plans of services and jobs that run at the same time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgpu.artifacts.payloads.job import JobChoice, JobPayload
from hgpu.artifacts.payloads.plan import AllocationRow, PlanPayload
from hgpu.artifacts.payloads.rented import offer_of
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact
from hgpu.core.allocation import Rental
from hgpu.core.errors import ArtifactError

Beside = Artifact[PlanPayload] | Artifact[JobPayload]


def beside(root: Path, refs: Sequence[str]) -> list[Beside]:
    """Return the plans and jobs that are named, each once; raises ArtifactError for anything else."""
    found: dict[str, Artifact[Any]] = {}
    for ref in refs:
        artifact = resolve(root, ref, accept=_rents)
        if not _rents(artifact):
            raise ArtifactError(
                f"'{ref}' is a {artifact.manifest.kind}",
                "what runs beside is a plan of a service, or a job",
                "see `hgpu list plan` and `hgpu list job`",
            )
        found.setdefault(artifact.digest, artifact)
    return list(found.values())


def rentals(artifacts: Sequence[Beside]) -> list[Rental]:
    """Return the machines that plans and jobs rent."""
    return [
        Rental(offer_of(row, row.usd_per_hour), row.machines if isinstance(row, JobChoice) else row.count)
        for artifact in artifacts
        for row in _rows(artifact.payload)
    ]


def _rents(artifact: Artifact[Any]) -> bool:
    return isinstance(artifact.payload, PlanPayload | JobPayload)


def _rows(payload: PlanPayload | JobPayload) -> Sequence[AllocationRow | JobChoice]:
    return [payload.choice] if isinstance(payload, JobPayload) else payload.allocation
