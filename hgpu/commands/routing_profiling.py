"""What `hgpu profile --mode offload` calls: record the routes of a spec's model, and save them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hgpu.artifacts.store import save
from hgpu.catalog.gpus import attached_gpus, resolve_gpu
from hgpu.commands.profile_request import RoutingRequest
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.gpu import GpuType
from hgpu.core.operating_point import Mode, OperatingPoint
from hgpu.latency.routing_artifact import routing_drafts
from hgpu.profilers.experts import BATCHES, RoutingJob, read_prompts, record_routing
from hgpu.report.output import print_json
from hgpu.report.progress import progress_of
from hgpu.report.routing import print_routings, routings_json
from hgpu.runtime.machine import Machine, Place, this_machine
from hgpu.specs.load import load_spec
from hgpu.specs.service import service_of


def refuse_options(mode: str | None, others: Mapping[str, object]) -> None:
    """Raise InputError for another mode than `offload`, and for options that recording has no use for."""
    if mode is None:
        raise InputError("prompts are recorded in mode offload only", fix="add --mode offload")
    if mode != Mode.OFFLOAD:
        raise UnknownName("mode to profile by itself", mode, [Mode.OFFLOAD])
    if given := [name for name, value in others.items() if value]:
        raise InputError(
            f"routes can't be recorded with {' and '.join(given)}",
            "vLLM's routers are watched from within its process, on this machine",
            "run hgpu there, without",
        )


def record_routes(path: Path, gpus: Sequence[str] | None, request: RoutingRequest, json: bool) -> None:
    """Record once for the spec's model, save an artifact a batch size, and print them."""
    if request.prompts is None:
        raise InputError(
            "which prompts to record isn't said",
            "experts depend on what the text is about, so that made-up prompts would mislead",
            'add --prompts FILE with lines like {"prompt": "def main():"} from your own traffic',
        )
    service = service_of(load_spec(path))
    if not service.model.is_moe:
        raise InputError(
            f"{service.model.name} has no experts", fix="mode offload is for mixtures of experts"
        )
    point, gpu, place = _where(service.points, gpus, this_machine(attached_gpus()))
    job = RoutingJob(
        source=service.model_source,
        point=point,
        gpu=gpu,
        prompts=read_prompts(request.prompts),
        batches=request.batches or BATCHES,
        tokens=request.tokens,
        temperature=request.temperature,
        load_format=request.load_format,
        cores=place.cores,
        gpus=place.gpus,
    )
    with progress_of(f"record {Path(service.model_source).name} on {gpu.name}") as progress:
        result = record_routing(job, progress)
    artifacts = [save(request.root, draft) for draft in routing_drafts(service.model, job, result)]
    print_json(routings_json(artifacts)) if json else print_routings(artifacts)


def _where(
    points: Sequence[OperatingPoint], gpus: Sequence[str] | None, machine: Machine
) -> tuple[OperatingPoint, GpuType, Place]:
    """Return the first point of one device that is attached here: all route alike."""
    wanted = {resolve_gpu(name).name for name in gpus} if gpus else {point.gpu for point in points}
    for point in points:
        gpu = resolve_gpu(point.gpu)
        place = machine.place(gpu, 1) if point.gpu in wanted and point.tp == 1 else None
        if place is not None:
            return point, gpu, place
    raise InputError(
        f"none of {', '.join(sorted(wanted))} is attached here",
        f"this machine has {machine.describe()}, and routes are recorded on one device",
        "run it where one is, or add a CPU type such as cpu-1core to the spec's gpus: routes are alike there",
    )
