"""From a spec and machines to jobs: what each machine measures, refused before it costs money."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import InputError
from hgpu.core.operating_point import OperatingPoint
from hgpu.deploy.cloud.job import CloudJob, Settings
from hgpu.deploy.cloud.options import CloudOptions
from hgpu.deploy.cloud.types import CloudType
from hgpu.profilers.vllm import VllmJob, refuse_unmeasurable
from hgpu.specs.serve import ServeSpec
from hgpu.specs.service import Service


def cloud_jobs(
    spec: ServeSpec,
    service: Service,
    machines: Sequence[CloudType],
    settings: Settings,
    options: CloudOptions,
) -> list[CloudJob]:
    """Return a job for each machine: all points of the spec with its GPU type.

    Raises InputError where a machine can't run one of them, or can't get at the model.
    """
    _refuse_local(service.model_source)
    return [
        CloudJob(machine, service.model, points, _spec_of(spec, machine, points), settings, options)
        for machine in machines
        for points in [_points(service, machine)]
    ]


def _points(service: Service, machine: CloudType) -> tuple[OperatingPoint, ...]:
    points = [point for point in service.timed_points if point.gpu == machine.gpu]
    if not points:
        raise InputError(
            f"the spec has no operating point for {machine.instance_type}",
            f"it has {machine.gpu}, and the spec names {', '.join(sorted({p.gpu for p in service.points}))}",
            f"add {machine.gpu} to its gpus, or leave the machine out",
        )
    large = [point.name for point in points if point.tp > machine.gpu_count]
    if large:
        raise InputError(
            f"{machine.instance_type} is too small for {', '.join(large)}",
            f"it has {machine.gpu_count} of {machine.gpu}",
            "take a larger machine, or a spec without that tensor_parallel degree",
        )
    for point in points:
        gpu = resolve_gpu(point.gpu)
        refuse_unmeasurable(VllmJob(service.model_source, service.model, gpu, point))
    return tuple(points)


def _spec_of(spec: ServeSpec, machine: CloudType, points: Sequence[OperatingPoint]) -> dict[str, Any]:
    """Return the spec that a machine gets: the model and its points.

    A profile depends on no workload, objective or price, so traces and price books stay at home; what a spec
    must have of them is put in.
    """
    return {
        "kind": spec.kind,
        "model": spec.model,
        **({} if spec.dtype is None else {"dtype": spec.dtype.value}),
        "workload": {"lengths": "chat", "rate_rps": 1.0},
        "slo": {"tpot_ms": 1000.0},
        "gpus": [machine.gpu],
        "tensor_parallel": sorted({point.tp for point in points}),
        "engine": spec.engine.model_dump(mode="json", exclude_none=True),
    }


def _refuse_local(source: str) -> None:
    if Path(source).exists() or source.startswith(("/", ".", "~")):
        raise InputError(
            f"the model is a file or folder of this machine: {source}",
            "rented machines load a model by its Hugging Face id; weights are never sent",
            "name a Hugging Face id in the spec",
        )
