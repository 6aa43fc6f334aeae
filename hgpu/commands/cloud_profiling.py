"""What `hgpu profile --on` calls: rent each machine, measure there, bring the profiles home."""

from collections.abc import Sequence
from pathlib import Path

from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.store import Artifact
from hgpu.catalog.offers import load_offers
from hgpu.commands.asking import ask
from hgpu.commands.cloud_request import CloudRequest
from hgpu.commands.failures import raise_failed
from hgpu.commands.interrupts import terminated_as_interrupted
from hgpu.commands.profile_request import Request
from hgpu.core.errors import InputError
from hgpu.deploy.cloud.fanout import Fleet
from hgpu.deploy.cloud.job import Settings
from hgpu.deploy.cloud.jobs import cloud_jobs
from hgpu.deploy.cloud.types import CloudType, cloud_types
from hgpu.deploy.ec2.options import Waits
from hgpu.report.output import note, usd
from hgpu.specs.load import load_spec
from hgpu.specs.service import service_of


def profile_in_cloud(
    path: Path, gpus: Sequence[str] | None, request: Request, asked: CloudRequest, fleet: Fleet | None = None
) -> list[Artifact[ProfilePayload]]:
    """Profile a spec on rented machines, and return what is home; raise HgpuError where any failed."""
    _refuse_others(gpus, request)
    waits = Waits() if asked.poll_s is None else Waits(poll_s=asked.poll_s)
    fleet = fleet or Fleet(waits)
    spec = load_spec(path)
    machines = cloud_types(asked.on, load_offers(spec.offers.book), asked.region)
    if asked.sweep:
        gone = fleet.sweep(sorted({machine.region for machine in machines}), note)
        note(f"{len(gone)} machines were past their deadline")
        return []
    settings = Settings(request.repeats, request.budget_s, request.load_format, request.point_limit_s)
    jobs = cloud_jobs(spec, service_of(spec), machines, settings, asked.options())
    cost = _cost(machines, jobs[0].options.deadline_min)
    note(cost)
    if not asked.yes:
        ask(cost, "read what it may cost, and add --yes")
    with terminated_as_interrupted():
        outcomes = fleet.run(jobs, request.root, note)
    profiles = [profile for job in jobs for profile in outcomes[job.name].profiles]
    errors = {
        job.machine.instance_type: error for job in jobs if (error := outcomes[job.name].error) is not None
    }
    raise_failed(errors, len(jobs), profiles)
    return profiles


def _cost(machines: Sequence[CloudType], deadline_min: int) -> str:
    """Say what the machines cost at most: each ends by itself at its deadline."""
    most = sum(machine.usd_per_hour for machine in machines) * deadline_min / 60
    each = ", ".join(f"{machine.instance_type} {usd(machine.usd_per_hour)} USD/h" for machine in machines)
    dates = min(machine.price_date for machine in machines)
    return (
        f"{each} for at most {deadline_min} minutes: {usd(most)} USD at most, at prices of {dates}; "
        "disks and traffic come on top"
    )


def _refuse_others(gpus: Sequence[str] | None, request: Request) -> None:
    given = {
        "--gpu": gpus,
        "--url": request.url,
        "--kv-tokens": request.kv_tokens,
        "--ray": request.ray,
        f"--profiler {request.profiler}": request.profiler not in ("auto", "vllm"),
    }
    words = [name for name, value in given.items() if value]
    if words:
        raise InputError(
            f"{', '.join(words)} doesn't go with --on",
            "its machines measure their own GPUs, with vLLM",
            "drop it",
        )
