"""Limits of specs as limits on the counts of columns.

A limit's name says what it counts: `gpus` or `machines` (all of them), `cpu_cores`, a GPU type (its
GPUs), an offer, a cloud, a region or a market (their machines), or one of these in one region, as
`L4@us-central1`.
"""

from collections.abc import Callable, Mapping, Sequence

from hgpu.catalog.gpus import resolve_gpu
from hgpu.core.allocation import Rental
from hgpu.core.errors import InputError, UnknownName
from hgpu.core.offer import Market, Offer
from hgpu.solvers.problem import Column, Limit, Unit
from hgpu.specs.service import Service

Weight = Callable[[Offer], float]
TOTALS: dict[str, Weight] = {
    "gpus": lambda offer: float(offer.gpu_count),
    "machines": lambda offer: 1.0,
    "cpu_cores": lambda offer: float(resolve_gpu(offer.gpu).cores),
}


def limits_of(services: Mapping[str, Service], columns: Sequence[Column]) -> list[Limit]:
    """Return the caps of the specs, which the services share, those of the offers, and the least engines.

    Raises UnknownName for a limit on something that no service has, and InputError where two give
    one limit two values.
    """
    beside = next((service.beside for service in services.values()), ())
    limits = [
        _limit(name, at_most, list(services.values()), columns, beside)
        for name, at_most in _shared(list(services.values())).items()
    ]
    for offer in dict.fromkeys(offer for service in services.values() for offer in service.offers):
        if offer.available is not None:
            mine = {c: 1.0 for c, column in enumerate(columns) if column.offer == offer}
            used = machines_beside(offer, beside)
            limits.append(_left(f"{offer.name}@{offer.region} available", offer.available, mine, used))
    for key, service in services.items():
        if service.min_engines > 1:
            mine = {c: 1.0 for c, column in enumerate(columns) if column.service == key}
            name = " ".join(part for part in (key, f"min_engines: {service.min_engines}") if part)
            limits.append(Limit(name, mine, at_least=service.min_engines, unit=Unit.ENGINES))
    return limits


def _shared(services: Sequence[Service]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for service in services:
        for name, at_most in service.limits.items():
            if limits.setdefault(name, at_most) != at_most:
                raise InputError(
                    f"two specs disagree about the limit '{name}'",
                    f"one says {limits[name]}, another {at_most}, and they share it",
                    "write the same value into both, or the limit into one of them only",
                )
    return limits


def _limit(
    name: str,
    at_most: int,
    services: Sequence[Service],
    columns: Sequence[Column],
    beside: Sequence[Rental],
) -> Limit:
    what, _, region = name.partition("@")
    offers = [offer for service in services for offer in service.offers]
    if region and region not in {offer.region for offer in offers}:
        raise UnknownName("region", region, {offer.region for offer in offers})
    weight = weight_of(what, offers)
    weights = {
        c: weight(column.offer)
        for c, column in enumerate(columns)
        if region in ("", column.offer.region) and weight(column.offer)
    }
    used = sum(weight(row.offer) * row.machines for row in beside if region in ("", row.offer.region))
    return _left(name, at_most, weights, used)


def _left(name: str, at_most: int, weights: Mapping[int, float], used: float) -> Limit:
    """Return a cap without what runs beside the services."""
    said = f", {used:g} of it used beside" if used else ""
    return Limit(f"{name}: {at_most}{said}", weights, max(0.0, at_most - used), used=used)


def weight_of(what: str, offers: Sequence[Offer]) -> Weight:
    """Return what a machine of an offer counts for; raises UnknownName for what no offer has."""
    if what in TOTALS:
        return TOTALS[what]
    names = {name for offer in offers for name in _names(offer)}
    if what in names or what in set(Market):
        return lambda offer: float(what in _names(offer))
    gpus = {offer.gpu for offer in offers}
    try:
        gpu = resolve_gpu(what).name
    except UnknownName as error:
        raise UnknownName("limit", what, {*names, *gpus, *TOTALS}) from error
    return lambda offer: float(offer.gpu_count * (offer.gpu == gpu))


def machines_beside(offer: Offer, beside: Sequence[Rental]) -> int:
    """Return how many of an offer's machines run something else."""
    place = (offer.name, offer.region)
    return sum(row.machines for row in beside if (row.offer.name, row.offer.region) == place)


def _names(offer: Offer) -> tuple[str, ...]:
    """What its machines can be counted by."""
    return (offer.name, offer.cloud, offer.region, str(offer.market))
