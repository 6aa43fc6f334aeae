"""What `hgpu plan` calls for specs of kind finetune."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hgpu.artifacts.digest import file_digest
from hgpu.artifacts.manifest import Environment, InputRef
from hgpu.artifacts.payloads.job import JobPayload
from hgpu.artifacts.payloads.memory import MemoryPayload
from hgpu.artifacts.resolve import resolve
from hgpu.artifacts.store import Artifact, Draft, save
from hgpu.catalog.offers import price_date
from hgpu.commands.beside import beside, rentals
from hgpu.core.errors import InputError
from hgpu.core.provenance import Provenance
from hgpu.latency.memory_tiers import machine_tiers
from hgpu.latency.training_select import KIND, require_used, select_activations
from hgpu.report.output import note
from hgpu.solvers.job_plan import plan_jobs
from hgpu.specs.finetune import FinetuneSpec
from hgpu.specs.finetune_job import Finetune, finetune_of
from hgpu.specs.load import load_any, load_kind


@dataclass(frozen=True, slots=True)
class JobsAsked:
    """Which fine-tunes to plan, and how.

    `refs` name measured activations, `beside` plans and jobs that run at the same time and count against the
    limits.
    """

    specs: Sequence[Path]
    root: Path
    refs: Sequence[str] = ()
    estimate: bool = False
    beside: Sequence[str] = ()
    time_limit_s: float = 60.0


def are_finetunes(paths: Sequence[Path]) -> bool:
    """Tell whether specs are of fine-tunes; raises InputError where some are and some aren't."""
    found = [isinstance(load_any(path), FinetuneSpec) for path in paths]
    if any(found) and not all(found):
        raise InputError(
            "fine-tunes and other specs can't be planned in one call",
            f"{sum(found)} of {len(found)} specs are of kind 'finetune'",
            "plan the services first, then the fine-tunes with --beside PLAN: they share the limits",
        )
    return any(found)


def plan_finetunes(asked: JobsAsked) -> list[Artifact[JobPayload]]:
    """Plan all fine-tunes together and keep a job of each."""
    names = [path.stem for path in asked.specs]
    if len(set(names)) < len(names):
        raise InputError("two specs have the same file name", ", ".join(names), "name them apart")
    finetunes = {path.stem: finetune_of(load_kind(path, FinetuneSpec)) for path in asked.specs}
    hosts = {name: _host(asked.root, finetune) for name, finetune in finetunes.items()}
    finetunes = {name: _on(finetune, hosts[name]) for name, finetune in finetunes.items()}
    chosen = {
        name: select_activations(asked.root, finetune, asked.refs, asked.estimate)
        for name, finetune in finetunes.items()
    }
    if not asked.estimate:
        require_used(asked.root, asked.refs, chosen.values())
    others = beside(asked.root, asked.beside)
    planned = plan_jobs(finetunes, chosen, rentals(others), asked.time_limit_s)
    if any(job.payload.activations.provenance is Provenance.ESTIMATED for job in planned):
        note("activations are estimated; `hgpu profile SPEC` measures them on this machine's CPU")
    return [
        save(
            asked.root,
            Draft(
                "job",
                finetune.name,
                job.payload,
                inputs=[
                    InputRef(role="spec", kind="file", digest=file_digest(path)),
                    *(artifact.as_input(KIND) for artifact in chosen[path.stem].measured),
                    *(other.as_input("beside") for other in others),
                    *(host.as_input("host") for host in hosts[path.stem]),
                ],
                options={"estimate": asked.estimate},
                environment=Environment(
                    price_date=price_date(finetune.offers), model_revision=finetune.model.digest[:12]
                ),
                timings=job.timings,
            ),
        )
        for path, finetune, job in zip(asked.specs, finetunes.values(), planned, strict=True)
    ]


def _host(root: Path, finetune: Finetune) -> list[Artifact[MemoryPayload]]:
    """Return the memory profile that a spec names; raises InputError for one that isn't valid."""
    ref = finetune.spec.host.profile
    if ref is None:
        return []
    artifact: Artifact[MemoryPayload] = resolve(root, ref, "memory")
    validity = artifact.manifest.validity
    if not validity.valid:
        raise InputError(
            f"memory profile {artifact.short} isn't valid",
            "; ".join(validity.reasons),
            "measure again on a quiet machine: hgpu profile memory",
        )
    return [artifact]


def _on(finetune: Finetune, hosts: Sequence[Artifact[MemoryPayload]]) -> Finetune:
    """Return a fine-tune with the memory of a measured machine."""
    tiers = [machine_tiers(host.payload).tiers for host in hosts]
    return replace(finetune, measured=tiers[0]) if tiers else finetune
