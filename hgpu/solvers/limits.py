"""Limits of a spec as limits on the counts of columns."""

from collections.abc import Sequence

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.errors import UnknownName
from hgpu.solvers.allocation import Column, Limit
from hgpu.specs.service import Service

CPU_CORES = "cpu_cores"


def limits_of(service: Service, columns: Sequence[Column]) -> list[Limit]:
    """Return the caps of the spec and of its offers, and the least number of engines.

    Raises UnknownName for a limit on something that the service doesn't have.
    """
    limits = [_limit(name, at_most, service, columns) for name, at_most in service.limits.items()]
    for offer in service.offers:
        if offer.available is not None:
            mine = {c: 1.0 for c, column in enumerate(columns) if column.offer == offer}
            limits.append(Limit(f"{offer.name} available: {offer.available}", mine, at_most=offer.available))
    if service.min_engines > 1:
        engines = {c: float(column.engines_per_machine) for c, column in enumerate(columns)}
        limits.append(Limit(f"min_engines: {service.min_engines}", engines, at_least=service.min_engines))
    return limits


def _limit(name: str, at_most: int, service: Service, columns: Sequence[Column]) -> Limit:
    """A limit on cores, on the GPUs of a type, or on the machines of an offer or a cloud."""
    label = f"{name}: {at_most}"
    if name == CPU_CORES:
        cores = {c: float(resolve_gpu(column.offer.gpu).cores) for c, column in enumerate(columns)}
        return Limit(label, cores, at_most)
    known = {offer.name for offer in service.offers} | {offer.cloud for offer in service.offers}
    if name in known:
        return Limit(
            label,
            {c: 1.0 for c, col in enumerate(columns) if name in (col.offer.name, col.offer.cloud)},
            at_most,
        )
    gpus = {point.gpu for point in service.points}
    try:
        gpu = resolve_gpu(name).name
    except UnknownName as error:
        raise UnknownName("limit", name, known | gpus | {CPU_CORES}) from error
    return Limit(
        label,
        {c: float(col.offer.gpu_count) for c, col in enumerate(columns) if col.offer.gpu == gpu},
        at_most,
    )
