"""What `hgpu profile --ray` calls: measure each operating point on a Ray cluster, save what succeeds."""

from collections.abc import Mapping, Sequence

from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.store import Artifact, save
from hgpu.catalog.gpus import resolve_gpu
from hgpu.commands.profile_request import Request
from hgpu.core.errors import EngineError, HgpuError, InputError
from hgpu.core.operating_point import OperatingPoint
from hgpu.latency.select import profile_draft
from hgpu.profilers.ray_fanout import Outcome, fan_out
from hgpu.profilers.result import ProfileResult
from hgpu.profilers.vllm import VllmJob, forget_journal
from hgpu.report.output import note
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
    _raise_for(outcomes, artifacts)
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


def _raise_for(outcomes: Mapping[OperatingPoint, Outcome], saved: Sequence[Artifact[ProfilePayload]]) -> None:
    """Raise one error for all that failed, and say what is saved nevertheless."""
    errors = {point: error for point, error in outcomes.items() if isinstance(error, HgpuError)}
    if not errors:
        return
    for artifact in saved:
        note(f"{artifact.payload.point.name}: saved {artifact.short}")
    if len(outcomes) == 1:
        raise next(iter(errors.values()))
    bad_input = all(isinstance(error, InputError) for error in errors.values())
    raise (InputError if bad_input else EngineError)(
        f"{len(errors)} of {len(outcomes)} profiles failed: {', '.join(point.name for point in errors)}",
        "; ".join(dict.fromkeys(f"{error.what}: {error.why}" for error in errors.values())),
        "; ".join(dict.fromkeys(error.fix for error in errors.values() if error.fix)),
    )
