"""What `hgpu profile --ray` calls: measure each operating point on a Ray cluster, save what succeeds."""

from collections.abc import Sequence

from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.store import Artifact, save
from hgpu.catalog.gpus import resolve_gpu
from hgpu.commands.failures import raise_failed
from hgpu.commands.profile_request import Request
from hgpu.core.errors import HgpuError, InputError
from hgpu.core.operating_point import OperatingPoint
from hgpu.latency.select import profile_draft
from hgpu.profilers.ray_fanout import fan_out
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.vllm import VllmJob, forget_journal
from hgpu.report.progress import progress_of
from hgpu.specs.service import Service


def profile_on_ray(
    service: Service, points: Sequence[OperatingPoint], address: str, request: Request
) -> list[Artifact[ProfilePayload]]:
    """Profile the points and save those that succeed; raise HgpuError where any failed."""
    if request.url is not None or request.profiler not in ("auto", "vllm"):
        other = "--url" if request.url is not None else f"--profiler {request.profiler}"
        raise InputError(
            f"{other} doesn't go with --ray", "a Ray cluster measures with vLLM", "drop one of them"
        )
    jobs = [_job(service, point, request) for point in points]
    with progress_of(f"profile on {address}") as progress:
        outcomes = fan_out(jobs, address, request.root, progress, request.ray_timeout_s)
    artifacts = [
        _saved(service, job, result, request)
        for job in jobs
        if isinstance(result := outcomes[job.point], ProfileResult)
    ]
    errors = {point.name: error for point, error in outcomes.items() if isinstance(error, HgpuError)}
    raise_failed(errors, len(outcomes), artifacts)
    return artifacts


def _job(service: Service, point: OperatingPoint, request: Request) -> VllmJob:
    return VllmJob(
        source=service.model_source,
        model=service.model,
        gpu=resolve_gpu(point.gpu),
        point=point,
        load_format=request.load_format,
        repeats=request.repeats,
        point_limit_s=request.point_limit_s,
    )


def _saved(
    service: Service, job: VllmJob, result: ProfileResult, request: Request
) -> Artifact[ProfilePayload]:
    options = {"repeats": request.repeats, "load_format": request.load_format}
    artifact = save(request.root, profile_draft(service.model, job.point, result, options))
    forget_journal(job, request.root)
    return artifact
