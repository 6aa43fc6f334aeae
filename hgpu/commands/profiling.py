"""What `hgpu profile` calls: choose a profiler for each operating point, run it, save the profile."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.reuse import save_once
from hgpu.artifacts.store import Artifact, save
from hgpu.catalog.gpus import attached_gpus, resolve_gpu
from hgpu.commands.profile_request import Request
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.operating_point import OperatingPoint
from hgpu.latency.offload_points import with_caches
from hgpu.latency.routing_source import named_routing
from hgpu.latency.select import profile_draft
from hgpu.profilers.endpoint import EndpointJob, profile_endpoint
from hgpu.profilers.estimate import estimate
from hgpu.profilers.silicon import silicon
from hgpu.profilers.vllm import VllmJob, forget_journal, profile_vllm
from hgpu.report.output import note
from hgpu.report.progress import progress_of
from hgpu.runtime.machine import Machine, this_machine
from hgpu.specs.load import load_spec
from hgpu.specs.service import Service, service_of


def profile_points(
    path: Path, gpus: Sequence[str] | None, request: Request
) -> list[Artifact[ProfilePayload]]:
    """Profile every operating point of a spec, or those of the named GPU types."""
    service = service_of(load_spec(path))
    routing = named_routing(request.root, service.routing)
    service = with_caches(service, routing, note).service
    machine = this_machine(attached_gpus())
    points = _points(service, gpus)
    if request.ray is not None:
        from hgpu.commands.ray_profiling import profile_on_ray

        return profile_on_ray(service, points, request.ray, request)
    if request.url is not None and len(points) > 1:
        raise InputError(
            "a URL is one operating point",
            f"the spec has {', '.join(point.name for point in points)}",
            "say with --gpu which of them answers there",
        )
    return [_chosen(request, point, machine)(service, point, machine, request) for point in points]


def _points(service: Service, gpus: Sequence[str] | None) -> list[OperatingPoint]:
    known = {point.gpu for point in service.points}
    wanted = {resolve_gpu(name).name for name in gpus} if gpus else known
    if missing := sorted(wanted - known):
        raise UnknownName("GPU type of the spec", missing[0], known)
    return [point for point in service.timed_points if point.gpu in wanted]


def _chosen(request: Request, point: OperatingPoint, machine: Machine) -> "Profiler":
    profiler = "endpoint" if request.url is not None else request.profiler
    if profiler != "auto":
        if profiler not in PROFILERS:
            raise UnknownName("profiler", profiler, ["auto", *PROFILERS])
        return PROFILERS[profiler]
    if point.experts is not None:
        note(f"{point.name}: estimated, as its steps depend on the routing: see hgpu profile --mode offload")
        return PROFILERS["estimate"]
    if machine.fits(resolve_gpu(point.gpu), point.tp):
        return PROFILERS["vllm"]
    note(f"{point.name}: not attached here, so it is estimated")
    return PROFILERS["estimate"]


def _estimate(
    service: Service, point: OperatingPoint, _: Machine, request: Request
) -> Artifact[ProfilePayload]:
    result = estimate(service.model, resolve_gpu(point.gpu), point)
    routing = named_routing(request.root, service.routing) if point.experts else None
    return save_once(request.root, profile_draft(service.model, point, result, {}, routing))


def _silicon(
    service: Service, point: OperatingPoint, _: Machine, request: Request
) -> Artifact[ProfilePayload]:
    result = silicon(service.model, service.model_source, resolve_gpu(point.gpu), point)
    return save_once(request.root, profile_draft(service.model, point, result, {}))


def _vllm(
    service: Service, point: OperatingPoint, machine: Machine, request: Request
) -> Artifact[ProfilePayload]:
    gpu = resolve_gpu(point.gpu)
    place = machine.place(gpu, point.tp)
    if place is None:
        raise InputError(
            f"{point.name} isn't attached here",
            f"this machine has {machine.describe()}",
            "use --profiler estimate",
        )
    job = VllmJob(
        source=service.model_source,
        model=service.model,
        gpu=gpu,
        point=point,
        load_format=request.load_format,
        repeats=request.repeats,
        budget_s=request.budget_s,
        cores=place.cores,
        gpus=place.gpus,
        point_limit_s=request.point_limit_s,
    )
    with progress_of(f"profile {point.name}") as progress:
        result = profile_vllm(job, request.root, progress)
    options = {"repeats": request.repeats, "load_format": request.load_format}
    artifact = save(request.root, profile_draft(service.model, point, result, options))
    forget_journal(job, request.root)
    return artifact


def _endpoint(
    service: Service, point: OperatingPoint, _: Machine, request: Request
) -> Artifact[ProfilePayload]:
    if request.url is None:
        raise InputError(
            "which server to profile isn't said", "the profiler `endpoint` needs --url", "add it"
        )
    if point.experts is not None:
        raise InputError(
            f"{point.name} can't be measured over a URL",
            "made-up prompts are routed otherwise than yours, and copies depend on the routing",
            "record the routing with `hgpu profile --mode offload`, and name it in offload.routing",
        )
    url = request.url.rstrip("/").removesuffix("/v1")
    job = EndpointJob(url, service.model, point, request.repeats, kv_capacity_tokens=request.kv_tokens)
    with progress_of(f"profile {point.name} at {url}") as progress:
        result = profile_endpoint(job, request.root, progress)
    artifact = save(request.root, profile_draft(service.model, point, result, {"repeats": request.repeats}))
    job.journal(request.root).unlink()
    return artifact


Profiler = Callable[[Service, OperatingPoint, Machine, Request], Artifact[ProfilePayload]]
PROFILERS: dict[str, Profiler] = {
    "vllm": _vllm,
    "endpoint": _endpoint,
    "silicon": _silicon,
    "estimate": _estimate,
}
